"""When neither way is timed: the rule decides, or torch's own is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from opennmt_sd import ops
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import choices


@pytest.mark.parametrize("rule", [True, False])
def test_switched_off_the_rule_decides(fake_card, use_of, rule: bool) -> None:
    fake_card.ours = 1.0 if not rule else 3.0
    use = use_of()
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


def test_deterministic_algorithms_are_dense(fake_card, use_of) -> None:
    use = use_of()
    torch.use_deterministic_algorithms(True)
    assert not use()
    torch.use_deterministic_algorithms(False)
    assert use()
    torch.use_deterministic_algorithms(True)
    assert not use()
    assert use.tried == 1


def test_a_captured_graph_is_dense(fake_card, use_of) -> None:
    use = use_of()
    fake_card.captured = True
    assert not use()
    fake_card.captured = False
    assert use()
    fake_card.captured = True
    assert not use()
    assert use.tried == 1


def test_a_compiler_sees_the_dense_way(fake_card, use_of, monkeypatch: pytest.MonkeyPatch) -> None:
    use = use_of()
    assert calibration.measurable(use.x)
    monkeypatch.setattr(choices, "is_compiling", lambda: True)
    assert not calibration.measurable(use.x)


def test_fakes_are_not_measured(fake_card) -> None:
    with FakeTensorMode() as mode:
        assert not calibration.measurable(mode.from_tensor(torch.ones(2)))
    assert not calibration.measurable(torch.ones(2, device="meta"))
    assert calibration.measurable(torch.nn.Parameter(torch.ones(2)))


def test_several_processes_follow_the_rule(
    fake_card, use_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one of them measured would not be what the others measure."""
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    fake_card.ours = 9.0
    assert use_of()(rule=True)
    assert not use_of()(T=60, rule=False)
    assert fake_card.marks == 0


class Again(torch.autograd.Function):
    """Calls something when its gradient is asked for, as a checkpointed part does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Callable[[], bool]) -> Tensor:
        ctx.call = call
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.call()
        return grad, None


def test_a_backward_pass_waits_for_no_other_thread(fake_card, use_of) -> None:
    """The other's trial may need this thread. Outside a backward pass one waits for the choice."""
    held, go, found = threading.Event(), threading.Event(), []

    class Slow(use_of):
        def ways(self) -> calibration.Ways:
            held.set()
            assert go.wait(30)
            return super().ways()

    slow, use = Slow(), use_of()
    other = threading.Thread(target=slow)
    waits = threading.Thread(target=lambda: found.append(use()))
    other.start()
    assert held.wait(30)
    x = torch.ones(2, requires_grad=True)
    Again.apply(x, lambda: found.append(use(T=60))).sum().backward()
    assert (found, use.tried) == ([False], 0)
    waits.start()
    go.set()
    other.join()
    waits.join()
    assert (found, slow.tried, use.tried) == ([False, True], 1, 0)
    assert use(T=60), "what was not decided then is decided later"
