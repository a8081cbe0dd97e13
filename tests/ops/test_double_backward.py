"""Double backward: the naive engine supports it, the others say who does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

from opennmt_sd import ops

KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered"]


def stepwise(keep) -> Callable[..., Tensor]:
    def run(x: Tensor, weight: Tensor) -> Tensor:
        handle = ops.prepare(weight)
        for t in range(2):
            x = torch.tanh(ops.masked_linear_step(handle, x, keep, t))
        return x

    return run


def function(op: str, keep) -> tuple[Callable[..., Tensor], list[tuple[int, ...]]]:
    """An op and the shapes of its inputs, of one width: 2 steps, 2 samples, 2 units."""
    return {
        "masked_linear": (lambda *given: ops.masked_linear(given[0], keep, *given[1:]),
                          [(2, 2, 2), (3, 2), (3,)]),
        "lstm_layer": (lambda x, *given: ops.lstm_layer(x, keep, *given, keep)[0],
                       [(2, 2, 2), (8, 2), (8,), (8, 2), (2, 2), (2, 2)]),
        "gru_layer": (lambda x, *given: ops.gru_layer(x, keep, *given, keep)[0],
                      [(2, 2, 2), (6, 2), (6,), (6, 2), (2,), (2, 2)]),
        "gru_gates": (ops.gru_gates, [(2, 6), (2, 6), (2, 2)]),
        "lstm_gates": (lambda gates, c: torch.cat(ops.lstm_gates(gates, c)), [(2, 8), (2, 2)]),
        "stepwise": (stepwise(keep), [(2, 2), (2, 2)]),
    }[op]  # fmt: skip


def inputs(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]


TORCHS = ["masked_linear", "lstm_gates", "gru_gates"]  # in the dense engine: torch's own
OPS = ["masked_linear", "lstm_layer", "lstm_gates", "gru_layer", "gru_gates", "stepwise"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_naive_supports_it(op: str, kind: str, draw) -> None:
    run, shapes = function(op, draw(kind, 0.5, 2, 2, 2, seed=3))
    with ops.use("naive"):
        assert gradgradcheck(run, inputs(shapes), fast_mode=True)


@pytest.mark.parametrize("op", OPS)
def test_others_refuse_it(engine: str, op: str, draw) -> None:
    run, shapes = function(op, draw("structured", 0.5, 2, 2, 2, seed=3))
    given = inputs(shapes)
    with ops.use(engine):
        y = run(*given)
        if engine == "dense" and op in TORCHS:
            assert gradgradcheck(run, given, fast_mode=True)
            return
    with pytest.raises(RuntimeError) as error:
        torch.autograd.grad(y.sum(), given, create_graph=True)
    assert str(error.value) == (
        f"double backward (create_graph=True) is not supported by the {engine} engine: run the "
        "forward pass under opennmt_sd.ops.use('naive'), which supports it"
    )
