"""The GRU: one layer in one direction, its gradients, and the gates of one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd._compile import uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.autocast import not_lowered
from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.engine import GRULayer, projection_of
from opennmt_sd.ops.outputs import shared
from opennmt_sd.ops.portable.linear import masked_linear, step_sizes, sum_dtype, wg
from opennmt_sd.ops.portable.recurrence import Step, in_order, states_before


@uncompiled  # loops over steps whose sizes only the data know
def gru_layer(layer: GRULayer) -> tuple[Tensor, Tensor]:
    x, keep = layer.x, layer.state_keep
    gates_x = masked_linear(projection_of(layer)).flatten(0, -2)
    hidden, h_n = _GRU.apply(
        gates_x, layer.weight_hh, layer.bias_hn, layer.h,
        None if keep is None else keep.to(x.device), step_sizes(x, layer.batch_sizes),
        layer.reverse,
    )  # fmt: skip
    return hidden.view(*x.shape[:-1], hidden.shape[-1]), h_n


class _GRU(Function):
    @staticmethod
    def forward(
        ctx: Any, gates_x: Tensor, weight_hh: Tensor, bias_hn: Tensor | None, h0: Tensor,
        keep: Keep | None, sizes: list[int], reverse: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        acc, H = sum_dtype(gates_x), h0.shape[1]
        gates = gates_x.new_empty(gates_x.shape, dtype=acc)  # [R, 3H], activated
        q, states = (gates.new_empty(gates.shape[0], H) for _ in range(2))  # [R, H]
        h = h0.to(acc, copy=True)  # the running state, [B, H]
        step = Step(weight_hh, keep)
        for t, rows in in_order(sizes, reverse):
            n = sizes[t]  # the sequences alive at t come first
            gates_h = step.fp(h[:n].to(h0.dtype), t)  # [n, 3H]
            if bias_hn is not None:
                gates_h[:, 2 * H :] += bias_hn
            q[rows] = gates_h[:, 2 * H :]
            gates[rows], h[:n] = gates_forward(gates_x[rows].to(acc), gates_h.to(acc), h[:n])
            states[rows] = h[:n]
        ours, ctx.changes = shared(states)
        ctx.save_for_backward(gates, q, ours, weight_hh, h0)
        ctx.keep, ctx.sizes, ctx.reverse = keep, sizes, reverse
        return states.to(gates_x.dtype), h.to(h0.dtype)

    @staticmethod
    @not_lowered
    def backward(ctx: Any, d_hidden: Tensor, d_h: Tensor) -> Any:
        refuse_second_derivatives("portable", d_hidden, d_h)
        refuse_batched_gradients("portable", d_hidden, d_h)
        gates, q, states, weight_hh, h0 = ctx.saved_tensors
        keep, sizes, reverse = ctx.keep, ctx.sizes, ctx.reverse
        first = h0.to(gates.dtype)
        if ctx.changes:
            states = _states(gates, first, sizes, reverse)
        before = states_before(states, first, sizes, reverse)  # [R, H]
        d_gates_x, d_gates_h = (weight_hh.new_empty(gates.shape) for _ in range(2))  # [R, 3H]
        dh = d_h.to(gates.dtype, copy=True)
        step = Step(weight_hh, keep)
        for t, rows in in_order(sizes, not reverse):
            n = sizes[t]
            d_gates_x[rows], d_gates_h[rows], dh_t = gates_backward(
                gates[rows], q[rows], before[rows], dh[:n] + d_hidden[rows]
            )
            dh[:n] = dh_t + step.bp(d_gates_h[rows], t)
        _, need_weight, need_bias = ctx.needs_input_grad[:3]
        dw = wg(before.to(h0.dtype), d_gates_h, keep, sizes) if need_weight else None
        db = d_gates_h[:, -h0.shape[1] :].sum(0) if need_bias else None
        return d_gates_x, dw, db, dh.to(h0.dtype), None, None, None


def _states(gates: Tensor, first: Tensor, sizes: list[int], reverse: bool) -> Tensor:
    """Return all h ``[R, H]`` again, from the activated gates."""
    h, states = first.clone(), first.new_empty(gates.shape[0], first.shape[1])
    _, z, n = gates.chunk(3, 1)
    for t, rows in in_order(sizes, reverse):
        alive = sizes[t]
        states[rows] = h[:alive] = _mixed(z[rows], n[rows], h[:alive])
    return states


def _mixed(z: Tensor, n: Tensor, h: Tensor) -> Tensor:
    return torch.addcmul((1 - z) * n, z, h)


def gates_forward(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activated gates ``[n, 3H]`` and the new h ``[n, H]``."""
    H = h.shape[1]
    rz = torch.sigmoid(gates_x[:, : 2 * H] + gates_h[:, : 2 * H])
    r, z = rz.chunk(2, 1)
    n = torch.tanh(torch.addcmul(gates_x[:, 2 * H :], r, gates_h[:, 2 * H :]))
    return torch.cat([rz, n], 1), _mixed(z, n, h)


def gates_backward(
    gates: Tensor, q: Tensor, h: Tensor, dh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of what either product adds to the gates, ``[n, 3H]`` each, and of the
    h before, as far as it does not come through the product.

    Args:
        gates: activated, ``[n, 3H]``.
        q: ``[n, H]``, what the reset gate scales.
        h, dh: the h before, and the gradient of the new one, ``[n, H]`` each.
    """
    r, z, n = gates.chunk(3, 1)
    d_n = dh * (1 - z) * (1 - n * n)
    d_r = d_n * q * r * (1 - r)
    d_z = dh * (h - n) * z * (1 - z)
    return torch.cat([d_r, d_z, d_n], 1), torch.cat([d_r, d_z, d_n * r], 1), dh * z


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
        gates, new = gates_forward(gates_x, gates_h, h)
        ctx.save_for_backward(gates, gates_h, h)
        return new

    @staticmethod
    @not_lowered
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        refuse_second_derivatives("portable", dh)
        gates, gates_h, h = ctx.saved_tensors
        return gates_backward(gates, gates_h[:, -h.shape[1] :], h, dh)


def gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    return _Gates.apply(gates_x, gates_h, h)
