"""What an op gives may be changed in place before backward, as what ``nn.LSTM`` gives may."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import DropoutPattern, StructuredGRU, StructuredLSTM, ops

KINDS = ["structured", "fixed", "mask", None]
T, B, D, H = 3, 4, 5, 6
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda y: y.mul_(0.5).add_(1),
    "one row": lambda y: (y[0].zero_(), y)[1],
    "none": lambda y: y * 2,
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())


def leaves(cell, dtype: torch.dtype, packed: bool) -> dict[str, Tensor]:
    return cell.leaves(cell.make(T, B, D, H, [4, 3, 1] if packed else None, dtype))


@every_change
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_layer(engine: str, cell, dtype, kind, packed: bool, change, draw) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, H)
    sizes = [4, 3, 1] if packed else None
    results = []
    for name in (engine, "naive"):
        given = leaves(cell, dtype, packed)
        with ops.use(name):
            outputs = cell(given, (None, keep), sizes, reverse=packed)
        loss = sum(change(out).square().sum() for out in outputs)
        results.append(torch.autograd.grad(loss, list(given.values())))
    close = {} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 5e-5}  # of up to 30
    for got, want in zip(*results):
        torch.testing.assert_close(got, want, **close)


@every_change
def test_the_gates(engine: str, change) -> None:
    results = []
    for name in (engine, "naive"):
        g = torch.Generator().manual_seed(1)
        given = [torch.randn(3, n, generator=g, dtype=torch.float64).requires_grad_()
                 for n in (20, 5)]  # fmt: skip
        with ops.use(name):
            h, c = ops.lstm_gates(*given)
        loss = change(h).square().sum() + change(c).square().sum()
        results.append(torch.autograd.grad(loss, given))
    for got, want in zip(*results):
        torch.testing.assert_close(got, want)


@every_change
def test_the_gates_of_a_gru(engine: str, change) -> None:
    results = []
    for name in (engine, "naive"):
        g = torch.Generator().manual_seed(1)
        given = [torch.randn(3, n, generator=g, dtype=torch.float64).requires_grad_()
                 for n in (15, 15, 5)]  # fmt: skip
        with ops.use(name):
            loss = change(ops.gru_gates(*given)).square().sum()
        results.append(torch.autograd.grad(loss, given))
    for got, want in zip(*results):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("module", [StructuredLSTM, StructuredGRU])
def test_a_module(any_engine: str, module, layout: str) -> None:
    """With recurrent dropout in float64, and packed: the gradient is that of a copy."""
    lstm = module(D, H, recurrent_dropout=DropoutPattern(0.5)).double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(T, B, D, generator=g, dtype=torch.float64, requires_grad=True)
    results = []
    for in_place in (True, False):
        torch.manual_seed(3)
        given = pack_padded_sequence(x, torch.tensor([3, 3, 2, 1])) if layout == "packed" else x
        y = lstm(given)[0]
        y = y.data if layout == "packed" else y
        y = y.add_(1).mul_(2) if in_place else (y + 1) * 2
        results.append(torch.autograd.grad(y.square().sum(), [x, *lstm.parameters()]))
    for got, want in zip(*results):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("module", [StructuredLSTM, StructuredGRU])
def test_last_states_are_no_views(any_engine: str, module, num_layers: int) -> None:
    """torch detaches no view in place, and changes none by a gate to be learned that was made
    without gradients."""
    layer = module(D, H, num_layers, input_dropout=0.5, recurrent_dropout=0.5)
    _, states = layer(torch.randn(T, B, D))
    for state in states if isinstance(states, tuple) else (states,):
        assert not state.detach_().requires_grad
    with torch.no_grad():
        _, states = layer(torch.randn(T, B, D))
    gate = torch.full((1,), 0.5, requires_grad=True)
    for state in states if isinstance(states, tuple) else (states,):
        assert state.mul_(gate).requires_grad


def test_no_change_costs_nothing(compacting: str, cell) -> None:
    """What is kept for backward is the output itself, not a copy."""
    kept: list[int] = []
    with (
        ops.use(compacting),
        torch.autograd.graph.saved_tensors_hooks(
            lambda x: (kept.append(x.data_ptr()), x)[1], lambda x: x
        ),
    ):
        y, *_ = cell(leaves(cell, torch.float32, packed=False), (None, None))
    assert y.data_ptr() in kept
