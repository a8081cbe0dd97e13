"""What the layers of all cells hand to the native side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from opennmt_sd.ops.cpu.binding import records
from opennmt_sd.ops.cpu.kernels.call import Addresses, Sets, keep_operand, new
from opennmt_sd.ops.cpu.kernels.linear import linear_operands


class Layer(Protocol):
    """What the operands of every cell's layer have; their own records are beside their ops."""

    @property
    def x(self) -> Tensor: ...
    @property
    def weight_ih(self) -> Tensor: ...
    @property
    def weight_hh(self) -> Tensor: ...
    @property
    def h(self) -> Tensor: ...
    @property
    def x_sets(self) -> Sets: ...
    @property
    def h_sets(self) -> Sets: ...
    @property
    def reverse(self) -> bool: ...


class Gradients(NamedTuple):
    """Memory for gradients: a tensor each, empty where it is not wanted, and its address or 0."""

    tensors: list[Tensor]
    addresses: list[int]


def gradients(
    at: Addresses, like: Tensor, shapes: Sequence[Sequence[int]], needs: Sequence[bool]
) -> Gradients:
    tensors = [new(like, *s) if need else like.new_empty(0) for s, need in zip(shapes, needs)]
    return Gradients(tensors, [at(x) if need else 0 for x, need in zip(tensors, needs)])


def own_gradient(given: Tensor | None, state: Tensor) -> Tensor:
    """Return a gradient of a last state in memory that a kernel may write to; zeros for None."""
    if given is None:
        return state.new_zeros(state.shape)
    return given.clone(memory_format=torch.contiguous_format)


def input_operands(
    at: Addresses, a: Layer, N: int, sizes: Sequence[int], bias: int = 0
) -> records.LinearOperands:
    D = a.x.shape[1]
    return linear_operands(
        x=at(a.x, sum(sizes), D), weight=at(a.weight_ih, N, D), bias=bias, D=D, N=N,
        keep=keep_operand(at, a.x_sets, len(sizes), D),
    )  # fmt: skip


def state_operands(
    at: Addresses, a: Layer, N: int, sizes: Sequence[int], cell: str, **rest: int
) -> records.RecurrenceOperands:
    B, H = a.h.shape
    return recurrence_operands(
        cell=cell, weight=at(a.weight_hh, N, H), h0=at(a.h, B, H), B=B, H=H,
        keep=keep_operand(at, a.h_sets, len(sizes), H, B), reverse=a.reverse,
        **rest,
    )  # fmt: skip


def recurrence_operands(
    *, cell: str, B: int, H: int, keep: records.KeepOperand, reverse: bool, weight: int = 0,
    bias: int = 0, h0: int = 0, c0: int = 0, gates: int = 0, cells: int = 0, hidden: int = 0,
) -> records.RecurrenceOperands:  # fmt: skip
    return records.RecurrenceOperands(
        cell=cell, weight=weight, bias=bias, h0=h0, c0=c0, B=B, H=H, keep=keep, reverse=reverse,
        gates=gates, cells=cells, hidden=hidden,
    )  # fmt: skip


def layer_grads(
    *, d_hidden: int, dh: int, dc: int = 0, dx: int, dw_ih: int, db: int, dw_hh: int, db_hn: int = 0
) -> records.LayerGrads:
    return records.LayerGrads(
        d_hidden=d_hidden, dh=dh, dc=dc, dx=dx, dw_ih=dw_ih, db=db, dw_hh=dw_hh, db_hn=db_hn
    )


def batch(sizes: Sequence[int], B: int) -> int:
    """Return R, of steps of which the first has all B rows (the native side: and none more)."""
    if sizes and sizes[0] != B:
        raise ValueError(f"the first step has {sizes[0]} rows, the first state {B}")
    return sum(sizes)
