"""What the ops of all cells' layers share: the last states, the shapes and FLOPs of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.operands import flops

Layer = kernels.Layer | kernels.gru.Layer
Needs = kernels.Needs | kernels.gru.Needs


def last(rows: Tensor, first: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """Return the state of each sequence after its last step in the order of computation."""
    B = first.shape[0]
    if not rows.shape[0]:
        return first.clone(memory_format=torch.contiguous_format)
    if reverse:
        return rows[:B].clone()
    if sizes[-1] == B:
        return rows[-B:].clone()
    ends: list[int] = []  # the last row of each sequence, the longest sequence first
    begin = len(rows)
    for n in reversed(sizes):
        begin -= n
        ends += range(begin + len(ends), begin + n)
    return rows[torch.tensor(ends, device="cpu")]


def like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_gradients(a: Layer, needs: Needs) -> list[Tensor]:
    """Return fakes of those for x, weight_ih, bias and weight_hh; of no size where not wanted."""
    shapes = (
        (a.x.shape, needs.x), (a.weight_ih.shape, needs.weight_ih),
        (a.weight_ih.shape[:1], needs.bias), (a.weight_hh.shape, needs.weight_hh),
    )  # fmt: skip
    return [a.x.new_empty(shape if need else (0,)) for shape, need in shapes]


def asked(needs: Needs, grads: Sequence[Tensor]) -> dict[str, Tensor | None]:
    """Return gradients, in the order of ``needs``, by name; None where not wanted."""
    given = zip(needs._asdict().items(), grads)
    return {name: gradient if need else None for (name, need), gradient in given}


def _products(a: Layer) -> tuple[int, int]:
    """Return the FLOPs of one product with weight_ih, and of one with weight_hh."""
    return (
        flops(a.weight_ih.shape, a.x_sets.counts, a.sizes),
        flops(a.weight_hh.shape, a.h_sets.counts, a.sizes),
    )


def fp_flops(a: Layer) -> int:
    return sum(_products(a))


def bp_flops(a: kernels.LayerBP | kernels.gru.LayerBP) -> int:
    needs, (of_x, of_h) = a.needs, _products(a.layer)
    return of_x * (needs.x + needs.weight_ih) + of_h * (1 + needs.weight_hh)
