"""A batch of targets with the longest first, so that steps past a target's end are left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SortedTargets:
    """The order of a batch's targets, and packed rows in it: time first, as ``batch_sizes`` say.

    Args:
        B, T: targets, and the steps of the longest.
        words: bool ``[B, T]``, False past the end of a target; None: every step counts for all.
        whole: every step counts for all, in the same order: nothing is read back from a GPU.

    Attributes:
        sizes: int64 ``[T]`` on the CPU: how many targets go on at each step; R is their sum.
    """

    def __init__(self, B: int, T: int, words: Tensor | None, *, whole: bool = False) -> None:
        self.B, self.T = B, T
        self.sizes = torch.full((T,), B, device="cpu")
        self._order: Tensor | None = None
        if words is None or (not whole and words[:, -1].all()):
            return
        steps = torch.arange(T, device=words.device)
        lengths = (words * (steps + 1)).amax(1)  # [B]
        lengths, self._order = lengths.sort(descending=True, stable=True)
        if whole:
            self._back = self._order.argsort()
            self._rows = (self._order * T + steps[:, None]).flatten()
            return
        lengths[0] = T  # where all end earlier
        goes_on = (lengths > steps[:, None]) | (steps[:, None] == 0)  # [T, B], sorted
        self.sizes = goes_on.sum(1).cpu()
        self._back = self._order.argsort()
        self._rows = (self._order * T + steps[:, None])[goes_on]  # [R], in [0, B T)

    def sort(self, x: Tensor, dim: int = 0) -> Tensor:
        """Put samples into this order."""
        return x if self._order is None else x.index_select(dim, self._order)

    def unsort(self, x: Tensor, dim: int = 0) -> Tensor:
        """Put samples into the batch's own order again."""
        return x if self._order is None else x.index_select(dim, self._back)

    def pack(self, x: Tensor) -> Tensor:
        """Return the rows ``[R, .]`` of ``[B, T, .]``."""
        if self._order is None:
            return x.transpose(0, 1).flatten(0, 1)
        return x.flatten(0, 1).index_select(0, self._rows)

    def steps(self, rows: Tensor) -> Sequence[Tensor]:
        """Return rows ``[R, .]`` step by step: T of ``[n, .]``."""
        return rows.split(self.sizes.tolist())

    def unpack(self, rows: Tensor) -> Tensor:
        """Turn rows ``[R, .]`` into ``[B, T, .]``, zero past the end of a target."""
        if self._order is None:
            return rows.view(self.T, self.B, -1).transpose(0, 1)
        padded = rows.new_zeros(self.B * self.T, rows.shape[1])
        return padded.index_copy(0, self._rows, rows).view(self.B, self.T, -1)
