"""A recurrence, whatever the cell: the products of its steps, their order, and its states."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.ops.portable.linear import slices


class Step:
    """FP and BP of one step at a time, the weight packed once for the sequence."""

    def __init__(self, weight: Tensor, keep: Keep | None) -> None:
        self.keep = keep
        self.packed = weight.t().contiguous()  # [H, gates * H]
        if isinstance(keep, KeepSets) and keep.steps == 1:
            self.packed = self.packed.index_select(0, keep.kept(0))

    def _of(self, keep: KeepSets, t: int) -> tuple[Tensor, Tensor]:
        """Return the kept units of step t and their rows of the packed weight."""
        K = keep.kept(t)
        return K, self.packed if keep.steps == 1 else self.packed.index_select(0, K)

    def fp(self, h: Tensor, t: int) -> Tensor:
        if isinstance(self.keep, KeepSets):
            K, packed = self._of(self.keep, t)
            return (h.index_select(1, K) @ packed).mul_(self.keep.scale)
        return (h if self.keep is None else self.keep.apply_step(h, t)) @ self.packed

    def bp(self, d_gates: Tensor, t: int) -> Tensor:
        if isinstance(self.keep, KeepSets):
            K, packed = self._of(self.keep, t)
            dh = d_gates.new_zeros(d_gates.shape[0], self.keep.width)
            return dh.index_copy_(1, K.long(), (d_gates @ packed.t()).mul_(self.keep.scale))
        dh = d_gates @ self.packed.t()
        return dh if self.keep is None else self.keep.apply_step(dh, t)


def in_order(sizes: list[int], reverse: bool) -> list[tuple[int, slice]]:
    steps = list(enumerate(slices(sizes)))
    return steps[::-1] if reverse else steps


def states_before(rows: Tensor, first: Tensor, sizes: list[int], reverse: bool) -> Tensor:
    """Return the state that enters each position, as rows, of those that leave and the first."""
    at = slices(sizes)
    if reverse:  # sequences that start at t enter with `first`
        later = [*sizes[1:], 0]
        parts = [
            p
            for t, (n, m) in enumerate(zip(sizes, later))
            for p in ((rows[at[t + 1]], first[m:n]) if m else (first[:n],))
        ]
    else:
        parts = [first[: sizes[0]]]
        parts += [rows[at[t - 1]][: sizes[t]] for t in range(1, len(sizes))]
    return torch.cat(parts)
