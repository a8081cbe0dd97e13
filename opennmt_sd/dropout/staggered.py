"""Sets that a step's samples do not share: each set serves rows of many steps.

Axis names: T time, B batch, D units; S is how many sets there are, R rows of all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opennmt_sd.dropout.apply import sent
from opennmt_sd.dropout.keep import Keep, KeepMask

# Rows of a set. With 64, 32 and 16 a translator's gradient was 36, 31 and 19 % noisier than with a
# mask for each row (64 sentences, p .3); with 48, 32, 24 and 16 the generator's three products took
# 3, 6, 9 and 15 % longer than with a set a step. A multiple of 12: rows of a tile.
ROWS = 24


@dataclass(frozen=True, eq=False)
class StaggeredSets(Keep):
    """The kept units of S sets, of which each sample takes the next one at each step: at step t
    sample b keeps what set (t + first[b]) mod S names.

    A sample's steps have different sets, as where a step's samples share one; but the rows that
    share one are at different places of their sequences. Samples are alike at one place, so the
    gradient is much less noisy. A product of all rows at once, which waits for no step, shrinks as
    far (:meth:`by_set`).

    Args:
        sets: S of them, T or more, each for all samples.
        first: the set that each sample begins with, int64 ``[B]``.
        T: steps.
    """

    sets: Keep
    first: Tensor
    T: int

    @staticmethod
    def count(T: int, B: int) -> int:
        """Return S for T steps of B samples: of :data:`ROWS` rows each, but T or more."""
        return max(T * B // ROWS, T)

    @classmethod
    def of(cls, sets: Keep, T: int, B: int, device: torch.device | str = "cpu") -> StaggeredSets:
        """Let B samples begin evenly apart, so that all sets serve as many rows."""
        first = torch.arange(B, device="cpu") * sets.steps // B
        return cls(sets, sent(first, device), T)

    @property
    def scale(self) -> float:  # type: ignore[override] # of what it is made of
        return self.sets.scale

    @property
    def steps(self) -> int:
        return self.T

    @property
    def width(self) -> int:
        return self.sets.width

    @property
    def samples(self) -> int:
        return len(self.first)

    def numbers(self) -> Tensor:
        """Return which set each sample takes at each step, int64 ``[T, B]``."""
        steps = torch.arange(self.T, device=self.first.device)
        return (steps[:, None] + self.first) % self.sets.steps

    def by_set(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return how rows are to be ordered so that each set's lie together.

        Args:
            rows: which ones there are, bool ``[T, B]``.

        Returns:
            The order, int64 ``[R]``, of the rows by step and sample; how many rows each
            set has, int64 ``[S]``.
        """
        numbers = self.numbers()[rows]  # [R]
        return numbers.argsort(stable=True), numbers.bincount(minlength=self.sets.steps)

    def mask(self) -> Tensor:
        return self._spread(self.sets.narrow())

    def factors(self, x: Tensor) -> Tensor:
        return self._spread(self.sets.factors(x))

    def _spread(self, of_sets: Tensor) -> Tensor:
        """Return ``[T, B, D]`` of what is ``[S, 1, D]``."""
        numbers = self.numbers().to(of_sets.device)
        return of_sets[:, 0].index_select(0, numbers.flatten()).unflatten(0, numbers.shape)

    def to(self, device: torch.device | str) -> StaggeredSets:
        return replace(self, sets=self.sets.to(device), first=self.first.to(device))

    def rescaled(self, scale: float) -> StaggeredSets:
        return replace(self, sets=self.sets.rescaled(scale))

    def reordered(self, order: Tensor) -> StaggeredSets:
        return replace(self, first=self.first[order.to(self.first.device)])

    def _like(self, mask: Tensor) -> KeepMask:  # type: ignore[override] # no rule is left
        return KeepMask(mask, self.scale)
