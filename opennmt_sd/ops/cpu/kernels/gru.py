"""The GRU: a layer at once, and the gates of one step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from opennmt_sd.ops.cpu.kernels.call import Addresses, Rows, Sets, call, new, product, team
from opennmt_sd.ops.cpu.kernels.recurrent import (
    batch,
    gradients,
    input_operands,
    layer_grads,
    own_gradient,
    state_operands,
)

CELL = "gru"  # its name on the native side


class Layer(NamedTuple):
    """Rows x ``[R, D]``; weight_ih ``[3H, D]``; bias ``[3H]``; weight_hh ``[3H, H]``; bias_hn
    ``[H]``; h ``[B, H]``; what is kept of x and, in the products, of h."""

    x: Tensor
    weight_ih: Tensor
    bias: Tensor | None
    weight_hh: Tensor
    bias_hn: Tensor | None
    h: Tensor
    x_sets: Sets
    h_sets: Sets
    rows: Rows
    reverse: bool
    lowers: bool = False  # float32, multiplied in bfloat16 where the processor can

    @property
    def sizes(self) -> list[int]:
        return self.rows.sizes(len(self.x))


class Needs(NamedTuple):
    """Which gradients of a layer are wanted."""

    x: bool
    weight_ih: bool
    bias: bool
    weight_hh: bool
    bias_hn: bool


class LayerBP(NamedTuple):
    """The gradients of all h ``[R, H]`` and of the last h, None for zeros; all h, and r, z, n and q
    ``[R, 4H]``."""

    d_hidden: Tensor
    dh: Tensor | None
    layer: Layer
    hidden: Tensor
    gates: Tensor
    needs: Needs


def layer_fp(a: Layer) -> tuple[Tensor, Tensor]:
    """Return all h, and what backward needs: r, z, n and q ``[R, 4H]``, q = W_hn h + bias_hn."""
    (B, H), at, sizes = a.h.shape, Addresses(a.x.dtype), a.sizes
    R = batch(sizes, B)
    gates, hidden = new(a.x, R, 4 * H), new(a.x, R, H)
    product(
        "layer_fp", a.x.dtype, a.lowers, sizes=sizes,
        input=input_operands(at, a, 3 * H, sizes, at(a.bias, 3 * H)),
        recurrence=state_operands(at, a, 3 * H, sizes, CELL, bias=at(a.bias_hn, H), gates=at(gates),
                                  hidden=at(hidden)),
    )  # fmt: skip
    return hidden, gates


def layer_bp(a: LayerBP) -> tuple[Tensor, ...]:
    """Return the gradients dx, dw_ih, db, dw_hh, db_hn and dh of :func:`layer_fp`.

    Those of the first five that are not wanted come back empty. The gradient of the gates is
    scratch memory and never a tensor.
    """
    layer = a.layer
    (B, H), D, x = layer.h.shape, layer.x.shape[1], layer.x
    at, sizes = Addresses(x.dtype), layer.sizes
    R = batch(sizes, B)
    shapes = (R, D), (3 * H, D), (3 * H,), (3 * H, H), (H,)
    grads, (dx, dw_ih, db, dw_hh, db_hn) = gradients(at, x, shapes, a.needs)
    dh = own_gradient(a.dh, layer.h)
    product(
        "layer_bp", x.dtype, layer.lowers, sizes=sizes,
        input=input_operands(at, layer, 3 * H, sizes),
        recurrence=state_operands(at, layer, 3 * H, sizes, CELL, gates=at(a.gates, R, 4 * H),
                                  hidden=at(a.hidden, R, H)),
        grads=layer_grads(d_hidden=at(a.d_hidden, R, H), dh=at(dh, B, H), dx=dx, dw_ih=dw_ih,
                          db=db, dw_hh=dw_hh, db_hn=db_hn),
    )  # fmt: skip
    return *grads, dh


def gates_fp(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new h ``[B, H]`` and what backward needs, of ``[B, 3H]``, ``[B, 3H]``, and h."""
    (B, H), at = h.shape, Addresses(h.dtype)
    saved, h_new = h.new_empty(B, 4 * H), h.new_empty(B, H)
    call(
        "gru_gates_fp", h.dtype, gates_x=at(gates_x, B, 3 * H), gates_h=at(gates_h, B, 3 * H),
        h=at(h, B, H), B=B, H=H, saved=at(saved), h_new=at(h_new), threads=team(saved),
    )  # fmt: skip
    return h_new, saved


def gates_bp(dh_new: Tensor, saved: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of both parts of the gates before the activation, and of h."""
    (B, H), at = h.shape, Addresses(h.dtype)
    d_gates_x, d_gates_h, dh = (h.new_empty(B, n * H) for n in (3, 3, 1))
    call(
        "gru_gates_bp", h.dtype, saved=at(saved, B, 4 * H), h=at(h, B, H),
        dh_new=at(dh_new, B, H), B=B, H=H, d_gates_x=at(d_gates_x), d_gates_h=at(d_gates_h),
        dh=at(dh), threads=team(saved),
    )  # fmt: skip
    return d_gates_x, d_gates_h, dh
