"""The masked linear layer: its three phases, of a whole sequence and of single steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.ops.cpu.binding import records, require_native
from opennmt_sd.ops.cpu.kernels.call import (
    Addresses,
    Sets,
    keep_operand,
    multiplied_in,
    new,
    product,
    suffix,
)


def linear_fp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sets: Sets,
    sizes: Sequence[int],
    lowers: bool = False,
) -> Tensor:
    """Return y ``[R, N]`` of rows x ``[R, D]``."""
    N, D, at = weight.shape[0], x.shape[1], Addresses(x.dtype)
    y = new(x, x.shape[0], N)
    product(
        "linear_fp", x.dtype, lowers, sizes=list(sizes), y=at(y),
        input=linear_operands(x=at(x, sum(sizes), D), weight=at(weight, N, D), bias=at(bias, N),
                              D=D, N=N, keep=keep_operand(at, sets, len(sizes), D)),
    )  # fmt: skip
    return y


def linear_bp(
    dy: Tensor,
    weight: Tensor,
    sets: Sets,
    sizes: Sequence[int],
    lowers: bool = False,
) -> Tensor:
    """Return dx ``[R, D]``, zero outside the kept units, of dy ``[R, N]``."""
    N, D, at = dy.shape[1], weight.shape[1], Addresses(dy.dtype)
    dx = new(dy, dy.shape[0], D)
    product(
        "linear_bp", dy.dtype, lowers, sizes=list(sizes), dy=at(dy, sum(sizes), N), dx=at(dx),
        input=linear_operands(weight=at(weight, N, D), D=D, N=N,
                      keep=keep_operand(at, sets, len(sizes), D)),
    )  # fmt: skip
    return dx


def linear_wg(
    x: Tensor,
    dy: Tensor,
    sets: Sets,
    sizes: Sequence[int],
    lowers: bool = False,
) -> Tensor:
    """Return dw ``[N, D]`` of rows x ``[R, D]`` and dy ``[R, N]``."""
    D, N, R, at = x.shape[1], dy.shape[1], sum(sizes), Addresses(dy.dtype)
    dw = new(dy, N, D)
    product(
        "linear_wg", dy.dtype, lowers, sizes=list(sizes), dy=at(dy, R, N), dw=at(dw),
        input=linear_operands(x=at(x, R, D), D=D, N=N,
                      keep=keep_operand(at, sets, len(sizes), D)),
    )  # fmt: skip
    return dw


def prepare(weight: Tensor, lowers: bool = False) -> Tensor:
    """Return ``weight [N, D]`` packed for :func:`step_fp` and :func:`step_bp`, which multiply it in
    the dtype that it has then."""
    (N, D), at = weight.shape, Addresses(weight.dtype)
    dtype = torch.bfloat16 if multiplied_in(weight.dtype, lowers) == "bf16" else weight.dtype
    packed = weight.new_empty(packed_size(N, D, dtype), dtype=dtype)
    product(
        "prepare", weight.dtype, lowers, weight=at(weight), N=N, D=D, packed=at(packed, dtype=dtype)
    )
    return packed


def packed_size(N: int, D: int, dtype: torch.dtype) -> int:
    kind = "bf16" if dtype == torch.bfloat16 else suffix(dtype)
    return getattr(require_native(), f"packed_size_{kind}")(N=N, D=D)


def step_fp(
    x: Tensor,
    packed: Tensor,
    N: int,
    bias: Tensor | None,
    sets: Sets,
) -> Tensor:
    """Compute one step of :func:`linear_fp`; the sets are this step's alone."""
    (B, D), at = x.shape, Addresses(x.dtype)
    y = x.new_empty(B, N)
    _step(
        "linear_fp", packed, sizes=[B], y=at(y),
        input=linear_operands(x=at(x), weight=_packed(at, packed, N, D), packed=True,
                              bias=at(bias, N), D=D, N=N, keep=keep_operand(at, sets, 1, D)),
    )  # fmt: skip
    return y


def step_bp(dy: Tensor, packed: Tensor, D: int, sets: Sets) -> Tensor:
    """Compute one step of :func:`linear_bp`."""
    (B, N), at = dy.shape, Addresses(dy.dtype)
    dx = dy.new_empty(B, D)
    _step(
        "linear_bp", packed, sizes=[B], dy=at(dy), dx=at(dx),
        input=linear_operands(weight=_packed(at, packed, N, D), packed=True, D=D, N=N,
                              keep=keep_operand(at, sets, 1, D)),
    )  # fmt: skip
    return dx


def _packed(at: Addresses, packed: Tensor, N: int, D: int) -> int:
    """Return the address of a packed weight for operands of a dtype that it goes with."""
    lowered = packed.dtype == torch.bfloat16 and at.dtype == torch.float32
    dtype = packed.dtype if lowered else at.dtype
    return at(packed, packed_size(N, D, dtype), dtype=dtype)


def _step(name: str, packed: Tensor, **operands: Any) -> None:
    kind = "bf16" if packed.dtype == torch.bfloat16 else suffix(packed.dtype)
    getattr(require_native(), f"{name}_{kind}")(threads=torch.get_num_threads(), **operands)


def steps_wg(
    xs: Sequence[Tensor],
    dys: Sequence[Tensor],
    sets: Sets,
    lowers: bool = False,
) -> Tensor:
    """Return dw ``[N, D]`` of steps x ``[B, D]`` and dy ``[B, N]`` wherever they lie."""
    if not len(xs) == len(dys) > 0:
        raise ValueError(f"every step needs its x and its dy, got {len(xs)} and {len(dys)}")
    (D, N), at = (xs[0].shape[1], dys[0].shape[1]), Addresses(xs[0].dtype)
    dw, sizes = new(xs[0], N, D), [len(x) for x in xs]
    if sets.idx is not None and len(sets.idx) != len(sizes):
        raise ValueError(f"{len(sets.idx)} keep sets do not fit {len(sizes)} steps")
    product(
        "steps_wg", dw.dtype, lowers, sizes=sizes, dw=at(dw),
        xs=[at(x, n, D) for x, n in zip(xs, sizes)],
        dys=[at(dy, n, N) for dy, n in zip(dys, sizes)],
        input=linear_operands(D=D, N=N, keep=keep_operand(at, sets, len(sizes), D)),
    )  # fmt: skip
    return dw


def linear_operands(
    *, D: int, N: int, keep: records.KeepOperand, x: int = 0, weight: int = 0, bias: int = 0,
    packed: bool = False,
) -> records.LinearOperands:  # fmt: skip
    return records.LinearOperands(x=x, weight=weight, packed=packed, bias=bias, D=D, N=N, keep=keep)
