"""A further argument is a further field of a record: whoever makes or reads one does so by name.

Here every record gets one more, with a default and in front, where it moves all the others.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.ops import measured
from opennmt_sd.ops.deferred import AttentionStep, LinearStep
from opennmt_sd.ops.dense.recurrence import Operands
from opennmt_sd.ops.engine import GRULayer, Loss, LSTMLayer, Projection
from opennmt_sd.ops.engines import ENGINES

RECORDS = LSTMLayer, GRULayer, Projection, Loss, LinearStep, AttentionStep, Operands
T, B, D, H = 4, 3, 5, 6
Random = Callable[..., Tensor]


def longer(kind: Any, made: set[str]) -> Any:
    """Return the record with a further field, which notes that it was made."""
    fields = "another", *kind._fields
    defaults = [kind._field_defaults.get(field) for field in fields]
    base: Any = namedtuple(kind.__name__, fields, defaults=defaults)  # type: ignore[misc]

    def make(record: Any, **by_name: Any) -> Any:
        made.add(kind.__name__)
        return base.__new__(record, **by_name)

    own = {name: member for name, member in vars(kind).items() if isinstance(member, property)}
    return type(kind.__name__, (base,), {**own, "__new__": make})


@pytest.fixture
def lengthen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Put a longer record in the place of each; give the names of those that are made then."""

    def lengthen() -> set[str]:
        made: set[str] = set()
        modules = [module for name, module in sys.modules.items() if name.startswith(ops.__name__)]
        for kind in RECORDS:
            instead = longer(kind, made)
            for module in modules:
                if vars(module).get(kind.__name__) is kind:
                    monkeypatch.setattr(module, kind.__name__, instead)
        return made

    return lengthen


def lstm(random: Random) -> tuple[Tensor, ...]:
    keep, state_keep = (DropoutPattern(0.5).draw(T, B, n) for n in (D, H))
    given = random(T, B, D), keep, random(4 * H, D), random(4 * H), random(4 * H, H)
    return ops.lstm_layer(*given, random(B, H), random(B, H), state_keep, reverse=True)


def gru(random: Random) -> tuple[Tensor, ...]:
    keep, sizes = DropoutPattern(0.5, time="fixed").draw(T, B, H), torch.tensor([3, 2, 1, 1])
    given = random(7, D), None, random(3 * H, D), random(3 * H), random(3 * H, H), random(H)
    return ops.gru_layer(*given, random(B, H), keep, batch_sizes=sizes)


def linear(random: Random) -> tuple[Tensor, ...]:
    keep = DropoutPattern(0.5, "random").draw(T, B, D)
    return (ops.masked_linear(random(T, B, D), keep, random(H, D), random(H)),)


def nll(random: Random) -> tuple[Tensor, ...]:
    keep, targets = DropoutPattern(0.5).draw(T, B, D), torch.randint(H, (T, B))
    given = random(T, B, D), keep, random(H, D), random(H), targets
    return ops.projected_nll(*given, label_smoothing=0.1, factor=0.5)


def attention(random: Random) -> tuple[Tensor, ...]:
    handle = ops.prepare_memory(random(B, 7, D), torch.tensor([7, 3, 1]))
    steps = [ops.attend_step(handle, random(n, D)) for n in (B, B, 1)]
    return tuple(result for step in steps for result in step)


def stepwise(random: Random) -> tuple[Tensor, ...]:
    handle = ops.prepare(random(H, D), random(H))
    patterns = DropoutPattern(0.5), DropoutPattern(0.3), DropoutPattern(0.5, "random"), None
    keeps = [None if pattern is None else pattern.draw(T, B, D) for pattern in patterns]
    return tuple(
        ops.masked_linear_step(handle, random(B, D), keep, t) for keep in keeps for t in (0, 3)
    )


# Of each op, a call, and the records that it makes.
OPS: dict[str, tuple[Callable[[Random], tuple[Tensor, ...]], set[str]]] = {
    "LSTM": (lstm, {"LSTMLayer"}),
    "GRU": (gru, {"GRULayer"}),
    "linear": (linear, {"Projection"}),
    "nll": (nll, {"Projection", "Loss"}),
    "attention": (attention, {"AttentionStep"}),
    "stepwise": (stepwise, {"LinearStep"}),
}
STEPS = {"AttentionStep", "LinearStep"}  # the naive engine has autograd do what they are for


def results(op: Callable[[Random], tuple[Tensor, ...]]) -> list[Tensor]:
    """Return what an op gives, and the gradients of all that it is given."""
    torch.manual_seed(0)
    leaves: list[Tensor] = []

    def random(*shape: int) -> Tensor:
        leaves.append(torch.randn(shape, dtype=torch.float64, requires_grad=True))
        return leaves[-1]

    outputs = op(random)
    loss = sum(y.square().sum() for y in outputs if y.requires_grad)
    assert isinstance(loss, Tensor)
    return [*outputs, *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("engine", ["naive", "portable", "cpu", "dense", "measured"])
def test_every_engine_reads_its_records_by_name(
    engine: str, name: str, lengthen: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "measured", measured)
    if engine == "cpu" and not ops.has_kernels(torch.zeros(1)):
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")
    op, records = OPS[name]
    with ops.use(engine):
        want = results(op)
        made = lengthen()
        got = results(op)
    if engine == "naive":
        records = records - STEPS
    if engine in ("dense", "measured") and name in ("LSTM", "GRU"):
        records = records | {"Operands"}
    assert records <= made
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)
