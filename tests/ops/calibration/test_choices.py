"""Two ways are timed at first use: which one is taken, when none is tried, and that no trace of a
trial is left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import ops
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import choices, key_of

Way = Callable[[Any], Any]


def dense(operands: Any) -> Tensor:
    x, (weight,) = operands
    return x @ weight.t()


def ours(operands: Any) -> Tensor:
    x, (weight,) = operands
    return torch.nn.functional.linear(x, weight)


class Use:
    """A computation that is called again and again."""

    def __init__(self, ours: Way = ours, dtype: torch.dtype = torch.float32) -> None:
        self.x = torch.randn(3, 5, dtype=dtype, requires_grad=True)
        self.weight = torch.randn(4, 5, dtype=dtype, requires_grad=True)
        self.way, self.tried = ours, 0

    def __call__(self, T: int = 6, B: int = 3, share: float = 0.5, rule: bool = True) -> bool:
        key = key_of("a product", self.x, (self.weight,), (5, 4), T, B, share)
        return calibration.chosen(key, self.x, rule=rule, ways=self.ways)

    def ways(self) -> calibration.Ways:
        self.tried += 1
        return calibration.Ways((self.x, [self.weight]), dense, self.way)


@pytest.mark.parametrize(("ms", "taken"), [(1.0, True), (1.89, True), (1.91, False), (3.0, False)])
def test_ours_only_if_it_is_5_percent_better(fake_card, ms: float, taken: bool) -> None:
    fake_card.dense, fake_card.ours = 2.0, ms
    assert Use()() is taken


def test_measured_once_and_then_looked_up(fake_card) -> None:
    use = Use()
    assert use()
    marks, fake_card.ours = fake_card.marks, 9.0
    assert all(use() for _ in range(3))
    assert (use.tried, fake_card.marks) == (1, marks)


def test_one_line_a_choice(fake_card, caplog: pytest.LogCaptureFixture) -> None:
    use = Use()
    with caplog.at_level(logging.INFO):
        use(), use()
    (line,) = caplog.messages
    what = "a product, 5 x 4, T 4-7, B 2-3, 0.5 kept, float32"
    assert line.startswith(f"opennmt_sd: ours (ours 1 ms, dense 2 ms): {what} (")
    assert line.endswith("), gradients yy; a card")


def test_one_line_says_by_whom(
    fake_card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Use()()
    choices._chosen[True].clear()
    Use()()
    kept = calibration.in_force()
    calibration.take(kept)
    Use()()
    with ops.calibrate(False):
        Use()(rule=False)
    choices.forget()
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    Use()()
    said = [line.partition(": ")[2].partition(": ")[0] for line in caplog.messages[:3]]
    said += [line.removeprefix("opennmt_sd: ").rpartition(": ")[0] for line in caplog.messages[3:]]
    assert said == [
        "ours (ours 1 ms, dense 2 ms)",
        "ours (ours 1 ms, dense 2 ms), as before",
        "ours (as in the checkpoint)",
        "dense (not timed: switched off)",
        "ours (not timed: several processes)",
    ]


def test_what_makes_another_key(fake_card) -> None:
    """Sizes in buckets, the share kept, the dtype, which gradients, autocast."""
    use = Use()
    for T, B, share, tried in [(6, 3, 0.5, 1), (7, 2, 0.52, 1), (8, 3, 0.5, 2), (6, 4, 0.5, 3),
                               (6, 3, 0.3, 4)]:  # fmt: skip
        use(T, B, share)
        assert use.tried == tried
    with torch.no_grad():
        use()
    use.weight.requires_grad_(False)
    use()
    assert use.tried == 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        use()
    assert use.tried == 7
    for dtype in (torch.float64, torch.bfloat16):
        other = Use(dtype=dtype)
        other()
        assert other.tried == 1
    texts = calibration.in_force()
    assert len(texts) == 9


def test_tf32_makes_another_key(fake_card, monkeypatch: pytest.MonkeyPatch) -> None:
    from opennmt_sd.ops.calibration import key

    use = Use()
    for flags in (("ieee", "ieee"), ("tf32", "ieee"), ("ieee", "tf32")):
        monkeypatch.setattr(key, "tf32", lambda flags=flags: flags)
        use()
    assert use.tried == 3


def raises(_: Any) -> Tensor:
    raise RuntimeError("no kernel\nfor this card")


def out_of_memory(_: Any) -> Tensor:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def wrong_forward(operands: Any) -> Tensor:
    return ours(operands) * 1.1


def wrong_backward(operands: Any) -> Tensor:
    _, (weight,) = operands
    return ours(operands) + (weight.sum() - weight.detach().sum())


def wrong_shape(operands: Any) -> Tensor:
    return ours(operands)[:1]


def no_number(operands: Any) -> Tensor:
    return ours(operands) * torch.nan


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (raises, "RuntimeError: no kernel)"),
        (out_of_memory, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB)"),
        (wrong_forward, "WrongResultError: results differ by "),
        (wrong_backward, "WrongResultError: results differ by "),
        (wrong_shape, "WrongResultError: torch.float32 [1, 4], not torch.float32 [3, 4])"),
        (no_number, "WrongResultError: results differ by nan"),
    ],
)
@pytest.mark.parametrize("on", [True, False], ids=["timed", "by rule"])
def test_what_fails_is_not_taken(
    fake_card, caplog: pytest.LogCaptureFixture, way: Way, why: str, on: bool
) -> None:
    use = Use(way)
    with ops.calibrate(on):
        assert not use()
        assert not use()
    (line,) = caplog.messages
    assert line.startswith(f"opennmt_sd: dense, since a trial of another way failed ({why}")
    assert "a product, 5 x 4" in line
    assert use.tried == 1
    assert fake_card.cleaned == 1


def test_a_failure_is_not_remembered_by_others(fake_card) -> None:
    assert not Use(raises)()
    choices.forget()
    assert Use()()


def test_data_that_cannot_be_compared(fake_card, caplog: pytest.LogCaptureFixture) -> None:
    use = Use()
    with torch.no_grad():
        use.x[0, 0] = torch.nan
    assert not use()
    assert "there are infinite values or NaN: nothing can be compared" in caplog.text


@pytest.mark.parametrize("rule", [True, False])
def test_switched_off_the_rule_decides(fake_card, rule: bool) -> None:
    fake_card.ours = 1.0 if not rule else 3.0
    use = Use()
    with ops.calibrate(False):
        assert use(rule=rule) is rule
        assert use(rule=rule) is rule
    assert fake_card.marks == 0
    assert use(rule=rule) is not rule  # on again


@pytest.mark.parametrize(("value", "on"), [("0", False), ("1", True), (None, True)])
def test_the_environment_switches_it_off(
    run_warm: Callable[..., Any], tmp_path: Path, value: str | None, on: bool
) -> None:
    script = tmp_path / "look.py"
    script.write_text("from opennmt_sd.ops import calibration; print(calibration.calibrates())")
    environment = {} if value is None else {"OPENNMT_SD_CALIBRATE": value}
    assert run_warm(str(script), **environment).stdout == f"{on}\n"


def test_deterministic_algorithms_are_dense(fake_card) -> None:
    use = Use()
    torch.use_deterministic_algorithms(True)
    assert not use()
    torch.use_deterministic_algorithms(False)
    assert use()
    torch.use_deterministic_algorithms(True)
    assert not use()
    assert use.tried == 1


def test_a_captured_graph_is_dense(fake_card) -> None:
    use = Use()
    fake_card.captured = True
    assert not use()
    fake_card.captured = False
    assert use()
    fake_card.captured = True
    assert not use()
    assert use.tried == 1


def test_a_compiler_sees_the_dense_way(fake_card, monkeypatch: pytest.MonkeyPatch) -> None:
    use = Use()
    assert calibration.measurable(use.x)
    monkeypatch.setattr(choices, "is_compiling", lambda: True)
    assert not calibration.measurable(use.x)


def test_fakes_are_not_measured(fake_card) -> None:
    with FakeTensorMode() as mode:
        assert not calibration.measurable(mode.from_tensor(torch.ones(2)))
    assert not calibration.measurable(torch.ones(2, device="meta"))
    assert calibration.measurable(torch.nn.Parameter(torch.ones(2)))


def test_who_counts_ops_sees_none_of_a_trial(fake_card) -> None:
    use = Use()
    with FlopCounterMode(display=False) as counter:
        assert use()
    assert counter.get_total_flops() == 0
    assert use.tried == 1


def test_several_processes_follow_the_rule(fake_card, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one of them measured would not be what the others measure."""
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    fake_card.ours = 9.0
    assert Use()(rule=True)
    assert not Use()(T=60, rule=False)
    assert fake_card.marks == 0


def test_no_trace_of_a_trial(fake_card) -> None:
    """Gradients, hooks, the random state, the graph: as if nothing had been tried."""
    use = Use()
    use.x.grad = torch.ones_like(use.x)
    seen: list[Tensor] = []
    for leaf in (use.x, use.weight):
        leaf.register_hook(seen.append)
        if hasattr(leaf, "register_post_accumulate_grad_hook"):
            leaf.register_post_accumulate_grad_hook(seen.append)
    state, versions = torch.get_rng_state(), (use.x._version, use.weight._version)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        assert use()
    assert (seen, saved, use.weight.grad) == ([], [], None)
    assert torch.equal(use.x.grad, torch.ones_like(use.x))
    assert torch.equal(state, torch.get_rng_state())
    assert versions == (use.x._version, use.weight._version)


def test_inside_a_checkpointed_part(fake_card) -> None:
    """Torch counts what the first forward pass saves, and what the second does."""
    use = Use()

    def part(x: Tensor) -> Tensor:
        use.x = x
        assert use()
        return dense((x, [use.weight])).sin()

    x = torch.randn(3, 5, requires_grad=True)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert use.tried == 1


def test_in_inference_mode(fake_card) -> None:
    with torch.inference_mode():
        assert Use()()


def test_checkpoints_take_choices_along(fake_card) -> None:
    fake_card.ours = 9.0
    use = Use()
    assert not use()
    kept = calibration.in_force()
    assert list(kept.values()) == [False]
    fake_card.ours = 1.0
    calibration.take(kept)
    assert not use()
    assert calibration.in_force() == kept
    calibration.take(dict.fromkeys(kept, True))
    assert use()
    assert fake_card.marks == 2 * 2 * 9  # of the first trial


def test_a_checkpoint_of_what_fails_here(fake_card, caplog: pytest.LogCaptureFixture) -> None:
    assert Use()()
    calibration.take(calibration.in_force())
    assert not Use(raises)()
    assert "RuntimeError: no kernel" in caplog.text


@pytest.mark.parametrize("given", [[], {"a": 1}, {1: True}, 3])
def test_damaged_choices_are_made_anew(
    fake_card, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert Use()()
    before = calibration.in_force()
    calibration.take(given)
    assert calibration.in_force() == before
    (line,) = caplog.messages
    assert line == "opennmt_sd: the checkpoint's choices by measurement are damaged: made anew"


def test_a_checkpoint_of_before(fake_card) -> None:
    assert Use()()
    before = calibration.in_force()
    calibration.take(None)
    assert calibration.in_force() == before
