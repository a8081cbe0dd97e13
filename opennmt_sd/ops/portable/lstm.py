"""The LSTM: one layer in one direction, its gradients, and the gates of one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd._compile import uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.autocast import not_lowered
from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.engine import LSTMLayer, projection_of
from opennmt_sd.ops.outputs import shared
from opennmt_sd.ops.portable.linear import masked_linear, step_sizes, sum_dtype, wg
from opennmt_sd.ops.portable.recurrence import Step, in_order, states_before


@uncompiled  # loops over steps whose sizes only the data know
def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    x, keep = layer.x, layer.state_keep
    gates_x = masked_linear(projection_of(layer)).flatten(0, -2)
    hidden, h_n, c_n = _LSTM.apply(
        gates_x, layer.weight_hh, layer.h, layer.c, None if keep is None else keep.to(x.device),
        step_sizes(x, layer.batch_sizes), layer.reverse,
    )  # fmt: skip
    return hidden.view(*x.shape[:-1], hidden.shape[-1]), h_n, c_n


class _LSTM(Function):
    @staticmethod
    def forward(
        ctx: Any, gates_x: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor,
        keep: Keep | None, sizes: list[int], reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        acc = sum_dtype(gates_x)
        gates = gates_x.new_empty(gates_x.shape, dtype=acc)  # [R, 4H], activated
        cells = gates.new_empty(gates.shape[0], h0.shape[1])  # [R, H]
        hidden = gates_x.new_empty(cells.shape)  # [R, H]
        h, c = h0.clone(), c0.to(acc, copy=True)  # the running state, [B, H]
        step = Step(weight_hh, keep)
        for t, rows in in_order(sizes, reverse):
            n = sizes[t]  # the sequences alive at t come first
            gates[rows] = gates_x[rows] + step.fp(h[:n], t)
            h_t, c_t = gates_forward(gates[rows], c[:n])
            hidden[rows] = h[:n] = h_t.to(h.dtype)
            cells[rows] = c[:n] = c_t
        ours, ctx.changes = shared(hidden)
        ctx.save_for_backward(gates, cells, ours, weight_hh, h0, c0)
        ctx.keep, ctx.sizes, ctx.reverse = keep, sizes, reverse
        return hidden, h, c.to(c0.dtype)

    @staticmethod
    @not_lowered
    def backward(ctx: Any, d_hidden: Tensor, d_h: Tensor, d_c: Tensor) -> Any:
        refuse_second_derivatives("portable", d_hidden, d_h, d_c)
        refuse_batched_gradients("portable", d_hidden, d_h, d_c)
        gates, cells, hidden, weight_hh, h0, c0 = ctx.saved_tensors
        keep, sizes, reverse = ctx.keep, ctx.sizes, ctx.reverse
        d_gates = gates.new_empty(gates.shape)  # [R, 4H], before the activation
        dh, dc = d_h.to(gates.dtype, copy=True), d_c.to(gates.dtype, copy=True)
        c_before = states_before(cells, c0.to(cells.dtype), sizes, reverse)  # [R, H]
        step = Step(weight_hh, keep)
        for t, rows in in_order(sizes, not reverse):
            n = sizes[t]
            dh_t = dh[:n] + d_hidden[rows]
            d_gates[rows], dc[:n] = gates_backward(
                gates[rows], c_before[rows], cells[rows], dh_t, dc[:n]
            )
            dh[:n] = step.bp(d_gates[rows].to(weight_hh.dtype), t)
        d_gates = d_gates.to(weight_hh.dtype)
        dw = None
        if ctx.needs_input_grad[1]:
            if ctx.changes:
                hidden = (gates[:, -h0.shape[1] :] * torch.tanh(cells)).to(hidden.dtype)
            dw = wg(states_before(hidden, h0, sizes, reverse), d_gates, keep, sizes)
        return d_gates, dw, dh.to(h0.dtype), dc.to(c0.dtype), None, None, None


def gates_forward(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Activate the gates ``[n, 4H]`` in place; return h and c ``[n, H]``."""
    H = c.shape[1]
    gates[:, : 2 * H].sigmoid_()
    gates[:, 2 * H : 3 * H].tanh_()
    gates[:, 3 * H :].sigmoid_()
    i, f, g, o = gates.chunk(4, 1)
    c = torch.addcmul(f * c, i, g)
    return o * torch.tanh(c), c


def gates_backward(
    gates: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the gates before their activation, and the one of c_before."""
    i, f, g, o = gates.chunk(4, 1)
    tanh_c = torch.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    d_gates = torch.cat(
        [
            dc * g * i * (1 - i),
            dc * c_before * f * (1 - f),
            dc * i * (1 - g * g),
            dh * tanh_c * o * (1 - o),
        ],
        1,
    )  # [n, 4H]
    return d_gates, dc * f


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = gates.clone()
        h, c_new = gates_forward(gates, c)
        ours, ctx.changes = shared(c_new)
        ctx.save_for_backward(gates, c, ours)
        return h, c_new

    @staticmethod
    @not_lowered
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
        refuse_second_derivatives("portable", dh, dc)
        gates, c, c_new = ctx.saved_tensors
        if ctx.changes:
            i, f, g, _ = gates.chunk(4, 1)
            c_new = torch.addcmul(f * c, i, g)
        return gates_backward(gates, c, c_new, dh, dc)


def lstm_gates(gates: Tensor, c: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return _Gates.apply(gates if added is None else gates + added, c)
