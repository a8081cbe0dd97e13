"""The GRU: one layer in one direction as an op, its gradient as another; the gates of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.cpu.custom_op import Autograd, register
from opennmt_sd.ops.cpu.kernels import Rows, gru
from opennmt_sd.ops.cpu.kernels.gru import Layer, LayerBP, Needs
from opennmt_sd.ops.cpu.operands import in_float32, kept, rows_and_sets
from opennmt_sd.ops.cpu.recurrent import asked, bp_flops, empty_gradients, fp_flops, last, like
from opennmt_sd.ops.engine import GRULayer
from opennmt_sd.ops.outputs import shared


def _fp(a: Layer) -> tuple[Tensor, ...]:
    """Return all h, the final h, and what backward needs: r, z, n and q."""
    hidden, gates = gru.layer_fp(a)
    return hidden, last(hidden, a.h, a.sizes, a.reverse), gates


def _fp_fake(a: Layer) -> tuple[Tensor, ...]:
    R, H = a.x.shape[0], a.h.shape[1]
    return a.x.new_empty(R, H), like(a.h), a.x.new_empty(R, 4 * H)


def _bp_fake(a: LayerBP) -> tuple[Tensor, ...]:
    bias_hn = a.layer.x.new_empty(a.layer.h.shape[1:] if a.needs.bias_hn else (0,))
    return *empty_gradients(a.layer, a.needs), bias_hn, like(a.layer.h)


def _further(ctx: Any, output: tuple[Tensor, ...]) -> Sequence[Tensor]:
    hidden, _, gates = output
    ctx.set_materialize_grads(False)
    hidden, ctx.changes = shared(hidden)
    return hidden, gates


def _again(a: Layer, gates: Tensor) -> Tensor:
    """Return all h, which the caller has changed, from the gates r, z and n."""
    _, z, n, _ = gates.chunk(4, 1)
    hidden, h, sizes = torch.empty_like(z), a.h.clone(), a.sizes
    steps = list(zip(*(rows.split(sizes) for rows in (hidden, z, n))))
    for to, z_t, n_t in reversed(steps) if a.reverse else steps:
        alive = h[: len(to)]
        to.copy_(alive.sub_(n_t).mul_(z_t).add_(n_t))
    return hidden


def _backward(
    ctx: Any, a: Layer, further: Sequence[Tensor], gradients: Sequence[Tensor | None],
    needs: Mapping[str, bool],
) -> dict[str, Tensor | None]:  # fmt: skip
    refuse_second_derivatives("cpu", *gradients)
    hidden, gates = further
    if ctx.changes:
        hidden = _again(a, gates)
    d_hidden, dh, *_ = gradients
    d_hidden = torch.zeros_like(hidden) if d_hidden is None else d_hidden
    wanted = Needs(**{name: needs[name] for name in Needs._fields})
    *grads, dh = layer_bp(
        LayerBP(d_hidden=d_hidden, dh=dh, layer=a, hidden=hidden, gates=gates, needs=wanted)
    )
    return {**asked(wanted, grads), "h": dh}


layer_bp = register("gru_layer_bp", LayerBP, 6, gru.layer_bp, _bp_fake, bp_flops)
layer_fp = register(
    "gru_layer_fp", Layer, 3, _fp, _fp_fake, fp_flops,
    Autograd(_backward, unneeded=("bias", "bias_hn"), further=_further),
)  # fmt: skip


def gru_layer(layer: GRULayer) -> tuple[Tensor, Tensor]:
    layer = in_float32(layer)
    x, batch_sizes = layer.x, layer.batch_sizes
    rows, sets = rows_and_sets(x, layer.keep, batch_sizes)
    hidden, h_n, _ = layer_fp(
        Layer(x=rows, weight_ih=layer.weight_ih, bias=layer.bias, weight_hh=layer.weight_hh,
              bias_hn=layer.bias_hn, h=layer.h, x_sets=sets, h_sets=kept(layer.state_keep),
              rows=Rows.of(x, batch_sizes), reverse=layer.reverse, lowers=layer.lowers)
    )  # fmt: skip
    hidden = hidden.view(*x.shape[:-1], hidden.shape[-1])
    return (hidden.bfloat16(), h_n.bfloat16()) if layer.lowers else (hidden, h_n)


# ---------------------------------------------------------------- the gates of one step


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
        h_new, saved = gru.gates_fp(gates_x, gates_h, h)
        ctx.save_for_backward(saved, h)
        return h_new

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> Any:
        refuse_second_derivatives("cpu", dh)
        refuse_batched_gradients("cpu", dh)
        return gru.gates_bp(dh, *ctx.saved_tensors)


def gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    if h.dtype == torch.bfloat16:
        return _Gates.apply(gates_x.float(), gates_h.float(), h.float()).bfloat16()
    return _Gates.apply(gates_x, gates_h, h)
