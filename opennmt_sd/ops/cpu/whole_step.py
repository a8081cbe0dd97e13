"""A step of torch's own LSTM cell as one node of the graph, where torch's has fifteen: for small
steps, which take as long as what goes around them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.compat import is_unwatched
from opennmt_sd.ops.autocast import autocast_dtype
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.binding import has_native
from opennmt_sd.ops.outputs import shared

Bias = Tensor | None


def serves(*tensors: Tensor | None) -> bool:
    """Return whether :func:`lstm_step` can run: on CPU tensors of one dtype that kernels have."""
    given = [x for x in tensors if x is not None]
    dtype = given[0].dtype
    return (
        dtype in kernels.DTYPES
        and all(x.is_cpu and x.dtype == dtype for x in given)
        and has_native()
        and is_unwatched()
        and autocast_dtype("cpu") is None
    )


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Bias,
    bias_hh: Bias,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the new h and c ``[B, H]``, as ``nn.LSTMCell`` does; nobody else has x and h."""
    h, c = _Step.apply(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh)
    return h, c


class _Step(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor,
        bias_ih: Bias, bias_hh: Bias,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        gates = F.linear(x, weight_ih, bias_ih).add_(F.linear(h, weight_hh, bias_hh))
        h_new, c_new, active = kernels.gates_fp(gates, c)
        ours, ctx.changes = shared(c_new)
        ctx.save_for_backward(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, active, ours)
        return h_new, c_new

    @staticmethod
    def backward(ctx: Any, dh_new: Tensor, dc_new: Tensor) -> Any:
        *given, active, c_new = ctx.saved_tensors
        x, h, c, weight_ih, weight_hh, *_ = given
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated in turn: create_graph
            return _by_graph(given, wanted, (dh_new, dc_new))
        if ctx.changes:
            i, f, g, _ = active.chunk(4, 1)
            c_new = f * c + i * g
        d_gates, dc = kernels.gates_bp(dh_new, dc_new, active, c, c_new)
        transposed = d_gates.t()
        return (
            d_gates @ weight_ih if wanted[0] else None,
            d_gates @ weight_hh if wanted[1] else None,
            dc,
            transposed @ x if wanted[3] else None,
            transposed @ h if wanted[4] else None,
            d_gates.sum(0) if wanted[5] else None,
            d_gates.sum(0) if wanted[6] else None,  # not the same tensor: each may be added to
        )


def _by_graph(
    given: list[Any], wanted: tuple[bool, ...], gradients: tuple[Tensor, Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of torch's own step, with a graph."""
    x, h, c, *weights = given
    outputs = torch.lstm_cell(x, (h, c), *weights)
    of = [y for y, want in zip(given, wanted) if want]
    found = iter(torch.autograd.grad(outputs, of, gradients, create_graph=True))
    return tuple(next(found) if want else None for want in wanted)
