"""The LSTM: one layer in one direction as an op, its gradient as another; the gates of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.custom_op import Autograd, register
from opennmt_sd.ops.cpu.kernels import Layer, LayerBP, Needs, Rows
from opennmt_sd.ops.cpu.operands import in_float32, kept, rows_and_sets
from opennmt_sd.ops.cpu.recurrent import asked, bp_flops, empty_gradients, fp_flops, last, like
from opennmt_sd.ops.engine import LSTMLayer
from opennmt_sd.ops.outputs import shared


def _fp(a: Layer) -> tuple[Tensor, ...]:
    """Return all h, the final h and c, and what backward needs: the activated gates and all c."""
    sizes = a.sizes
    hidden, gates, cells = kernels.layer_fp(a)
    states = (hidden, a.h), (cells, a.c)
    h_n, c_n = (last(rows, first, sizes, a.reverse) for rows, first in states)
    return hidden, h_n, c_n, gates, cells


def _fp_fake(a: Layer) -> tuple[Tensor, ...]:
    R, H = a.x.shape[0], a.h.shape[1]
    return (
        a.x.new_empty(R, H), like(a.h), like(a.c), a.x.new_empty(R, 4 * H), a.x.new_empty(R, H),
    )  # fmt: skip


def _bp_fake(a: LayerBP) -> tuple[Tensor, ...]:
    return *empty_gradients(a.layer, a.needs), like(a.layer.h), like(a.layer.c)


def _further(ctx: Any, output: tuple[Tensor, ...]) -> Sequence[Tensor]:
    hidden, _, _, gates, cells = output
    ctx.set_materialize_grads(False)
    hidden, ctx.changes = shared(hidden)
    return hidden, gates, cells


def _backward(
    ctx: Any, a: Layer, further: Sequence[Tensor], gradients: Sequence[Tensor | None],
    needs: Mapping[str, bool],
) -> dict[str, Tensor | None]:  # fmt: skip
    refuse_second_derivatives("cpu", *gradients)
    hidden, gates, cells = further
    if ctx.changes:
        hidden = gates[:, -a.h.shape[1] :] * torch.tanh(cells)
    d_hidden, dh, dc, *_ = gradients
    d_hidden = torch.zeros_like(hidden) if d_hidden is None else d_hidden
    wanted = Needs(**{name: needs[name] for name in Needs._fields})
    *grads, dh, dc = layer_bp(
        LayerBP(d_hidden=d_hidden, dh=dh, dc=dc, layer=a, hidden=hidden, gates=gates, cells=cells,
                needs=wanted)
    )  # fmt: skip
    return {**asked(wanted, grads), "h": dh, "c": dc}


layer_bp = register("layer_bp", LayerBP, 6, kernels.layer_bp, _bp_fake, bp_flops)
layer_fp = register(
    "layer_fp", Layer, 5, _fp, _fp_fake, fp_flops,
    Autograd(_backward, unneeded=("bias",), further=_further),
)  # fmt: skip


def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    layer = in_float32(layer)
    x, batch_sizes = layer.x, layer.batch_sizes
    rows, sets = rows_and_sets(x, layer.keep, batch_sizes)
    hidden, h_n, c_n, *_ = layer_fp(
        Layer(x=rows, weight_ih=layer.weight_ih, bias=layer.bias, weight_hh=layer.weight_hh,
              h=layer.h, c=layer.c, x_sets=sets, h_sets=kept(layer.state_keep),
              rows=Rows.of(x, batch_sizes), reverse=layer.reverse, lowers=layer.lowers)
    )  # fmt: skip
    hidden = hidden.view(*x.shape[:-1], hidden.shape[-1])
    if layer.lowers:
        return hidden.bfloat16(), h_n.bfloat16(), c_n.bfloat16()
    return hidden, h_n, c_n


# ---------------------------------------------------------------- the gates of one step


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c_new, active = kernels.gates_fp(gates, c)
        ours, ctx.changes = shared(c_new)
        ctx.save_for_backward(active, c, ours)
        return h, c_new

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> Any:
        refuse_second_derivatives("cpu", dh, dc)
        refuse_batched_gradients("cpu", dh, dc)
        active, c, c_new = ctx.saved_tensors
        if ctx.changes:
            i, f, g, _ = active.chunk(4, 1)
            c_new = f * c + i * g
        return kernels.gates_bp(dh, dc, active, c, c_new)


def lstm_gates(gates: Tensor, c: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    gates = gates if added is None else gates + added
    wider = torch.promote_types(gates.dtype, c.dtype)
    if wider == torch.bfloat16:
        h, c = _Gates.apply(gates.float(), c.float())
        return h.bfloat16(), c.bfloat16()
    return _Gates.apply(gates.to(wider), c.to(wider))
