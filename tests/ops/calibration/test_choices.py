"""Two ways are timed at first use: which one is taken, and that no trace of a trial is left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import ops
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import choices

Way = Callable[[Any], Any]


@pytest.mark.parametrize(("ms", "taken"), [(1.0, True), (1.89, True), (1.91, False), (3.0, False)])
def test_ours_only_if_it_is_5_percent_better(fake_card, use_of, ms: float, taken: bool) -> None:
    fake_card.dense, fake_card.ours = 2.0, ms
    assert use_of()() is taken


def test_measured_once_and_then_looked_up(fake_card, use_of) -> None:
    use = use_of()
    assert use()
    marks, fake_card.ours = fake_card.marks, 9.0
    assert all(use() for _ in range(3))
    assert (use.tried, fake_card.marks) == (1, marks)


def test_one_line_a_choice(fake_card, use_of, caplog: pytest.LogCaptureFixture) -> None:
    use = use_of()
    with caplog.at_level(logging.INFO):
        use(), use()
    (line,) = caplog.messages
    what = "a product, 5 x 4, T 4-7, B 2-3, 0.5 kept, float32"
    assert line.startswith(f"opennmt_sd: ours (ours 1 ms, dense 2 ms): {what} (")
    assert line.endswith("), gradients yy; a card")


def test_one_line_says_by_whom(
    fake_card, use_of, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    use_of()()
    choices._chosen[True].clear()
    use_of()()
    kept = calibration.in_force()
    calibration.take(kept)
    use_of()()
    with ops.calibrate(False):
        use_of()(rule=False)
    choices.forget()
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    use_of()()
    said = [line.partition(": ")[2].partition(": ")[0] for line in caplog.messages[:3]]
    said += [line.removeprefix("opennmt_sd: ").rpartition(": ")[0] for line in caplog.messages[3:]]
    assert said == [
        "ours (ours 1 ms, dense 2 ms)",
        "ours (ours 1 ms, dense 2 ms), as before",
        "ours (as in the checkpoint)",
        "dense (not timed: switched off)",
        "ours (not timed: several processes)",
    ]


def test_what_makes_another_key(fake_card, use_of) -> None:
    """Sizes in buckets, the share kept, the dtype, which gradients, autocast."""
    use = use_of()
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
        other = use_of(dtype=dtype)
        other()
        assert other.tried == 1
    texts = calibration.in_force()
    assert len(texts) == 9


def test_tf32_makes_another_key(fake_card, use_of, monkeypatch: pytest.MonkeyPatch) -> None:
    from opennmt_sd.ops.calibration import key

    use = use_of()
    for flags in (("ieee", "ieee"), ("tf32", "ieee"), ("ieee", "tf32")):
        monkeypatch.setattr(key, "tf32", lambda flags=flags: flags)
        use()
    assert use.tried == 3


def raises(_: Any) -> Tensor:
    raise RuntimeError("no kernel\nfor this card")


def out_of_memory(_: Any) -> Tensor:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def ours(operands: Any) -> Tensor:
    x, (weight,) = operands
    return F.linear(x, weight)


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
    fake_card, use_of, caplog: pytest.LogCaptureFixture, way: Way, why: str, on: bool
) -> None:
    use = use_of(way)
    with ops.calibrate(on):
        assert not use()
        assert not use()
    (line,) = caplog.messages
    assert line.startswith(f"opennmt_sd: dense, since a trial of another way failed ({why}")
    assert "a product, 5 x 4" in line
    assert use.tried == 1
    assert fake_card.cleaned == 1


def test_a_failure_is_not_remembered_by_others(fake_card, use_of) -> None:
    assert not use_of(raises)()
    choices.forget()
    assert use_of()()


def test_data_that_cannot_be_compared(fake_card, use_of, caplog: pytest.LogCaptureFixture) -> None:
    use = use_of()
    with torch.no_grad():
        use.x[0, 0] = torch.nan
    assert not use()
    assert "there are infinite values or NaN: nothing can be compared" in caplog.text


def test_who_counts_ops_sees_none_of_a_trial(fake_card, use_of) -> None:
    use = use_of()
    with FlopCounterMode(display=False) as counter:
        assert use()
    assert counter.get_total_flops() == 0
    assert use.tried == 1


def test_no_trace_of_a_trial(fake_card, use_of) -> None:
    """Gradients, hooks, the random state, the graph: as if nothing had been tried."""
    use = use_of()
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


def test_inside_a_checkpointed_part(fake_card, use_of) -> None:
    """Torch counts what the first forward pass saves, and what the second does."""
    use = use_of()

    def part(x: Tensor) -> Tensor:
        use.x = x
        assert use()
        return F.linear(x, use.weight).sin()

    x = torch.randn(3, 5, requires_grad=True)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert use.tried == 1


def test_in_inference_mode(fake_card, use_of) -> None:
    with torch.inference_mode():
        assert use_of()()


def test_checkpoints_take_choices_along(fake_card, use_of) -> None:
    fake_card.ours = 9.0
    use = use_of()
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


def test_a_checkpoint_of_what_fails_here(
    fake_card, use_of, caplog: pytest.LogCaptureFixture
) -> None:
    assert use_of()()
    calibration.take(calibration.in_force())
    assert not use_of(raises)()
    assert "RuntimeError: no kernel" in caplog.text


@pytest.mark.parametrize("given", [[], {"a": 1}, {1: True}, 3])
def test_damaged_choices_are_made_anew(
    fake_card, use_of, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert use_of()()
    before = calibration.in_force()
    calibration.take(given)
    assert calibration.in_force() == before
    (line,) = caplog.messages
    assert line == "opennmt_sd: the checkpoint's choices by measurement are damaged: made anew"


def test_a_checkpoint_of_before(fake_card, use_of) -> None:
    assert use_of()()
    before = calibration.in_force()
    calibration.take(None)
    assert calibration.in_force() == before
