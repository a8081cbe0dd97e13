"""The LSTM: the recurrence alone, a layer at once, and the gates of one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from opennmt_sd.ops.cpu.kernels.call import (
    Addresses,
    Rows,
    Sets,
    call,
    keep_operand,
    new,
    product,
    team,
)
from opennmt_sd.ops.cpu.kernels.recurrent import (
    batch,
    gradients,
    input_operands,
    layer_grads,
    own_gradient,
    recurrence_operands,
    state_operands,
)

CELL = "lstm"  # its name on the native side


class Layer(NamedTuple):
    """Rows x ``[R, D]``; weight_ih ``[4H, D]``; bias ``[4H]``; weight_hh ``[4H, H]``; h and c
    ``[B, H]``; what is kept of x and of h."""

    x: Tensor
    weight_ih: Tensor
    bias: Tensor | None
    weight_hh: Tensor
    h: Tensor
    c: Tensor
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


class LayerBP(NamedTuple):
    """The gradients of all h ``[R, H]`` and of the last h and c (None: zeros); all h, the activated
    gates ``[R, 4H]`` and all c."""

    d_hidden: Tensor
    dh: Tensor | None
    dc: Tensor | None
    layer: Layer
    hidden: Tensor
    gates: Tensor
    cells: Tensor
    needs: Needs


def layer_fp(a: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Return all h, the activated gates and all c: :func:`linear_fp`, then :func:`lstm_fp`."""
    (B, H), at, sizes = a.h.shape, Addresses(a.x.dtype), a.sizes
    R = batch(sizes, B)
    gates, hidden, cells = (new(a.x, R, n * H) for n in (4, 1, 1))
    product(
        "layer_fp", a.x.dtype, a.lowers, sizes=sizes,
        input=input_operands(at, a, 4 * H, sizes, at(a.bias, 4 * H)),
        recurrence=state_operands(at, a, 4 * H, sizes, CELL, c0=at(a.c, B, H), gates=at(gates),
                                  cells=at(cells), hidden=at(hidden)),
    )  # fmt: skip
    return hidden, gates, cells


def layer_bp(a: LayerBP) -> tuple[Tensor, ...]:
    """Return the gradients dx, dw_ih, db, dw_hh, dh and dc of :func:`layer_fp`.

    Those of the first four that are not wanted come back empty. The gradient of the gates is
    scratch memory and never a tensor.
    """
    layer = a.layer
    (B, H), D, x = layer.h.shape, layer.x.shape[1], layer.x
    at, sizes = Addresses(x.dtype), layer.sizes
    R = batch(sizes, B)
    shapes = (R, D), (4 * H, D), (4 * H,), (4 * H, H)
    grads, (dx, dw_ih, db, dw_hh) = gradients(at, x, shapes, a.needs)
    dh, dc = own_gradient(a.dh, layer.h), own_gradient(a.dc, layer.c)
    product(
        "layer_bp", x.dtype, layer.lowers, sizes=sizes,
        input=input_operands(at, layer, 4 * H, sizes),
        recurrence=state_operands(at, layer, 4 * H, sizes, CELL, c0=at(layer.c, B, H),
                                  gates=at(a.gates, R, 4 * H), cells=at(a.cells, R, H),
                                  hidden=at(a.hidden, R, H)),
        grads=layer_grads(d_hidden=at(a.d_hidden, R, H), dh=at(dh, B, H), dc=at(dc, B, H), dx=dx,
                          dw_ih=dw_ih, db=db, dw_hh=dw_hh),
    )  # fmt: skip
    return *grads, dh, dc


def lstm_fp(
    gates_x: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    sets: Sets,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return all h ``[R, H]``, the activated gates ``[R, 4H]`` and all c ``[R, H]``."""
    (B, H), at = h0.shape, Addresses(gates_x.dtype)
    R = batch(sizes, B)
    gates = new(gates_x, R, 4 * H)
    hidden, cells = new(gates_x, R, H), new(gates_x, R, H)
    product(
        "recurrence_fp", gates_x.dtype, False, sizes=list(sizes), gates_x=at(gates_x, R, 4 * H),
        recurrence=recurrence_operands(
            cell=CELL, weight=at(weight, 4 * H, H), h0=at(h0, B, H), c0=at(c0, B, H), B=B, H=H,
            keep=keep_operand(at, sets, len(sizes), H, B), reverse=reverse,
            gates=at(gates), cells=at(cells), hidden=at(hidden),
        ),
    )  # fmt: skip
    return hidden, gates, cells


def lstm_bp(
    d_hidden: Tensor,
    dh: Tensor,
    dc: Tensor,
    weight: Tensor,
    c0: Tensor,
    gates: Tensor,
    cells: Tensor,
    sets: Sets,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return d_gates ``[R, 4H]`` before the activation, dh0 and dc0, of the gradients of h, c."""
    (B, H), at = c0.shape, Addresses(gates.dtype)
    R = batch(sizes, B)
    d_gates = new(gates, R, 4 * H)
    dh, dc = (d.clone(memory_format=torch.contiguous_format) for d in (dh, dc))
    product(
        "recurrence_bp", gates.dtype, False, sizes=list(sizes), d_hidden=at(d_hidden, R, H),
        dh=at(dh, B, H), dc=at(dc, B, H), d_gates=at(d_gates),
        recurrence=recurrence_operands(
            cell=CELL, weight=at(weight, 4 * H, H), c0=at(c0, B, H), B=B, H=H,
            keep=keep_operand(at, sets, len(sizes), H, B), reverse=reverse,
            gates=at(gates, R, 4 * H), cells=at(cells, R, H),
        ),
    )  # fmt: skip
    return d_gates, dh, dc


def lstm_wg(
    hidden: Tensor,
    h0: Tensor,
    d_gates: Tensor,
    sets: Sets,
    sizes: Sequence[int],
    reverse: bool,
) -> Tensor:
    """Return dw ``[4H, H]``: the states that entered each step times d_gates."""
    (B, H), at = h0.shape, Addresses(hidden.dtype)
    R = batch(sizes, B)
    dw = new(hidden, 4 * H, H)
    product(
        "recurrence_wg", hidden.dtype, False, sizes=list(sizes), d_gates=at(d_gates, R, 4 * H),
        dw=at(dw),
        recurrence=recurrence_operands(
            cell=CELL, h0=at(h0, B, H), B=B, H=H, reverse=reverse,
            keep=keep_operand(at, sets, len(sizes), H, B),
            hidden=at(hidden, R, H),
        ),
    )  # fmt: skip
    return dw


def gates_fp(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return h and c ``[B, H]`` and the activated gates, of ``[B, 4H]`` before the activation."""
    (B, H), at = c.shape, Addresses(gates.dtype)
    active, h, c_new = gates.new_empty(B, 4 * H), c.new_empty(B, H), c.new_empty(B, H)
    call(
        "gates_fp", gates.dtype, gates=at(gates, B, 4 * H), c=at(c, B, H), B=B, H=H,
        active=at(active), c_new=at(c_new), h=at(h), threads=team(gates),
    )  # fmt: skip
    return h, c_new, active


def gates_bp(
    dh: Tensor, dc: Tensor, active: Tensor, c: Tensor, c_new: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the gates before the activation, and of c."""
    (B, H), at = c.shape, Addresses(active.dtype)
    d_gates, dc = active.new_empty(B, 4 * H), dc.clone(memory_format=torch.contiguous_format)
    call(
        "gates_bp", active.dtype, active=at(active, B, 4 * H), c=at(c, B, H), c_new=at(c_new, B, H),
        dh=at(dh, B, H), B=B, H=H, dc=at(dc, B, H), d_gates=at(d_gates), threads=team(active),
    )  # fmt: skip
    return d_gates, dc
