"""Operands whose values are not simply those in their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.compat import KNOWS_OPS

pytestmark = pytest.mark.usefixtures("native")

T, B, D = 3, 2, 4
KEEP = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))


def linear(x: Tensor, w: Tensor) -> Tensor:
    return ops.masked_linear(x, KEEP, w)


def steps(x: Tensor, w: Tensor) -> Tensor:
    handle = ops.prepare(w)
    return torch.stack([ops.masked_linear_step(handle, step, KEEP, t) for t, step in enumerate(x)])


def lstm(x: Tensor, w: Tensor) -> Tensor:
    h = c = x[0]
    return ops.lstm_layer(x, KEEP, w, None, w, h, c, KEEP)[0]


def gru(x: Tensor, w: Tensor) -> Tensor:
    w = w[: 3 * D]
    return ops.gru_layer(x, KEEP, w, None, w, None, x[0], KEEP)[0]


every_op = pytest.mark.parametrize("op", [linear, steps, lstm, gru])


def results(op: Callable[..., Tensor], kind: Callable[[Tensor], Any], engine: str) -> list[Any]:
    """The output and the gradients, of operands and of an output's gradient of a kind."""
    torch.manual_seed(2)
    x, w = kind(torch.randn(T, B, D)).requires_grad_(), torch.randn(4 * D, D, requires_grad=True)
    with ops.use(engine):
        y = op(x, w)
    d = torch.randn(y.shape)
    return [y, *torch.autograd.grad(y, (x, w), kind(d))]


def negated(x: Tensor) -> Tensor:
    """A view that is its memory's opposite, as ``z.conj().imag`` is."""
    return torch._neg_view(-x)


class Named(Tensor):
    """What a library derives, to keep something beside the values."""


def named(x: Tensor) -> Tensor:
    return x.as_subclass(Named)


@every_op
@pytest.mark.parametrize("kind", [negated, named])
def test_the_values_are_taken(op, kind: Callable[[Tensor], Tensor]) -> None:
    for found, expected in zip(results(op, kind, "cpu"), results(op, Tensor.clone, "naive")):
        torch.testing.assert_close(found.as_subclass(Tensor), expected)


@pytest.mark.skipif(not KNOWS_OPS, reason="fakes of ops need torch 2.4")
@pytest.mark.parametrize("op", [linear, lstm, gru])
def test_a_fake_outside_of_its_mode_gives_fakes(op) -> None:
    """It has no memory that a kernel could read."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    found = results(op, mode.from_tensor, "cpu")
    shapes = [(T, B, D * (4 if op is linear else 1)), (T, B, D), (4 * D, D)]
    assert [tuple(y.shape) for y in found] == shapes
    assert all(isinstance(y, FakeTensor) for y in found[:2])


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_kernel_that_is_no_op_refuses_a_fake() -> None:
    x = FakeTensorMode().from_tensor(torch.zeros(B, 4 * D))
    with ops.use("cpu"), pytest.raises(ValueError) as caught:
        ops.lstm_gates(x, x[:, :D])
    assert str(caught.value) == "a CPU kernel needs values in memory, a FakeTensor has none"
