"""The masked linear layer: its three phases as ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from opennmt_sd.ops.checks import refuse_second_derivatives
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.custom_op import Autograd, register
from opennmt_sd.ops.cpu.kernels import Rows, Sets
from opennmt_sd.ops.cpu.operands import flops, in_float32, rows_and_sets
from opennmt_sd.ops.engine import Projection


class Linear(NamedTuple):
    """Rows x ``[R, D]``, weight ``[N, D]``, bias ``[N]``; whether float32 is multiplied in
    bfloat16, where the processor can."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    sets: Sets
    rows: Rows
    lowers: bool = False


class LinearBP(NamedTuple):
    """dy ``[R, N]``, weight ``[N, D]``."""

    dy: Tensor
    weight: Tensor
    sets: Sets
    rows: Rows
    lowers: bool = False


class LinearWG(NamedTuple):
    """x ``[R, D]``, dy ``[R, N]``."""

    x: Tensor
    dy: Tensor
    sets: Sets
    rows: Rows
    lowers: bool = False


def _fp(a: Linear) -> Tensor:
    return kernels.linear_fp(a.x, a.weight, a.bias, a.sets, a.rows.sizes(len(a.x)), a.lowers)


def _bp(a: LinearBP) -> Tensor:
    return kernels.linear_bp(a.dy, a.weight, a.sets, a.rows.sizes(len(a.dy)), a.lowers)


def _wg(a: LinearWG) -> Tensor:
    return kernels.linear_wg(a.x, a.dy, a.sets, a.rows.sizes(len(a.x)), a.lowers)


def _backward(
    ctx: Any,  # noqa: ARG001
    a: Linear,
    _: Any,
    gradients: Sequence[Tensor],
    needs: Mapping[str, bool],
) -> dict[str, Tensor | None]:
    (dy,) = gradients
    refuse_second_derivatives("cpu", dy)
    dx = linear_bp(LinearBP(dy, a.weight, a.sets, a.rows, a.lowers)) if needs["x"] else None
    dw = linear_wg(LinearWG(a.x, dy, a.sets, a.rows, a.lowers)) if needs["weight"] else None
    return {"x": dx, "weight": dw, "bias": dy.sum(0) if needs["bias"] else None}


linear_bp = register(
    "linear_bp", LinearBP, 1, _bp,
    lambda a: a.dy.new_empty(a.dy.shape[0], a.weight.shape[1]),
    lambda a: flops(a.weight.shape, a.sets.counts, a.rows.sizes(len(a.dy))),
)  # fmt: skip
linear_wg = register(
    "linear_wg", LinearWG, 1, _wg,
    lambda a: a.dy.new_empty(a.dy.shape[1], a.x.shape[1]),
    lambda a: flops((a.dy.shape[1], a.x.shape[1]), a.sets.counts, a.rows.sizes(len(a.x))),
)  # fmt: skip
linear_fp = register(
    "linear_fp", Linear, 1, _fp,
    lambda a: a.x.new_empty(a.x.shape[0], a.weight.shape[0]),
    lambda a: flops(a.weight.shape, a.sets.counts, a.rows.sizes(len(a.x))),
    Autograd(_backward, unneeded=("bias",)),
)  # fmt: skip


def masked_linear(projection: Projection) -> Tensor:
    given = in_float32(projection)
    x, weight, batch_sizes = given.x, given.weight, given.batch_sizes
    rows, sets = rows_and_sets(x, given.keep, batch_sizes)
    where = Rows.of(x, batch_sizes)
    y = linear_fp(
        Linear(x=rows, weight=weight, bias=given.bias, sets=sets, rows=where, lowers=given.lowers)
    )
    y = y.view(*x.shape[:-1], weight.shape[0])
    return y.bfloat16() if given.lowers else y
