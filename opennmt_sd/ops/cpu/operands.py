"""The records that the CPU's ops take, and how they come from a public op's arguments.

Axis names: T time, B batch, R rows (of all steps), D inputs, H hidden, N outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.ops.cpu.kernels import Sets
from opennmt_sd.ops.engine import GRULayer, LSTMLayer, Projection


def kept(keep: Keep | None) -> Sets:
    """Return the sets, or the mask, of a draw."""
    if keep is None:
        return Sets()
    keep = keep.to("cpu")
    if isinstance(keep, KeepSets):
        return Sets(keep.idx, keep.count, keep.scale)
    return Sets(scale=keep.scale, mask=keep.mask())


Operands = TypeVar("Operands", Projection, LSTMLayer, GRULayer)


def in_float32(operands: Operands) -> Operands:
    """Return operands that the kernels take: of bfloat16 as float32, and so that they lower it."""
    wide: dict[str, Any] = {
        name: x.float()
        for name, x in operands._asdict().items()
        if isinstance(x, Tensor) and x.dtype == torch.bfloat16
    }
    return operands._replace(**wide, lowers=True) if wide else operands


def rows_and_sets(x: Tensor, keep: Keep | None, batch_sizes: Tensor | None) -> tuple[Tensor, Sets]:
    """Return rows ``[R, D]`` and the sets to leave units out by.

    What samples keep each for itself is applied here: a smaller product would not serve it.
    """
    if keep is not None and not isinstance(keep, KeepSets):
        x, keep = keep.apply(x, batch_sizes), None
    return x.flatten(0, -2), kept(keep)


def flops(shape: Sequence[int], counts: Tensor | None, sizes: Sequence[int]) -> int:
    """Return those of one product with a weight of this shape, ``[N, D]``."""
    N, D = shape
    units = [D] if counts is None else counts.tolist()
    units = units * len(sizes) if len(units) == 1 else units
    return sum(2 * n * k * N for n, k in zip(sizes, units))
