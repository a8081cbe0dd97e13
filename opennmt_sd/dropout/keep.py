"""What a draw keeps, as data that every layer understands: sets of units, or a dense mask.

Axis names: T time, B batch, D units; S is T, or 1 where one set serves every step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opennmt_sd.dropout import apply as applying
from opennmt_sd.dropout.packed import rows_of_mask
from opennmt_sd.dropout.philox import compact

if TYPE_CHECKING:
    from typing_extensions import Self


class Keep:
    """What is kept: :class:`KeepSets`, :class:`KeepMask`, and sets that samples take in turn
    (:class:`~opennmt_sd.dropout.staggered.StaggeredSets`).

    Everything a layer needs besides the raw data: how many steps it holds, how to cut, join and
    apply it. ``scale`` is what kept values are multiplied by.
    """

    scale: float

    def mask(self) -> Tensor:
        """Return the mask: boolean ``[S, 1 or B, D]``, True is kept."""
        raise NotImplementedError

    def narrow(self) -> Tensor:
        """Return the mask, boolean ``[S, 1, D]`` where all samples share it."""
        return applying.compact(self.mask())

    def to(self, device: torch.device | str) -> Self:
        """Return the same, on another device."""
        raise NotImplementedError

    def _like(self, mask: Tensor) -> Self:
        """Return the same form and scale from another mask."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Return S: T, or 1 where one set serves every step."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Return D."""
        raise NotImplementedError

    @property
    def samples(self) -> int | None:
        """Return B; None where any number of samples may share the sets."""
        return None

    @property
    def shared(self) -> bool:
        """Return whether all samples keep the same."""
        return self.samples in (None, 1)

    def __getitem__(self, t: int) -> Self:
        """Return what step t keeps, alone (S = 1)."""
        s = self._set(t)
        return self._like(self.mask()[s : s + 1])

    def _set(self, t: int) -> int:
        """Return the number of the set that step t takes."""
        return 0 if self.steps == 1 else range(self.steps)[t]

    def cat(self, other: Self) -> Self:
        """Join two inputs side by side: widths add up; scales must agree.

        Raises:
            ValueError: the scales differ, or one is structured and the other is not.
        """
        if isinstance(self, KeepSets) is not isinstance(other, KeepSets):
            raise ValueError("keep sets side by side must both be structured or both be random")
        if self.scale != other.scale:
            raise ValueError(
                f"keep sets side by side need one scale, got {self.scale} and {other.scale}: "
                "apply the dropout to both inputs first and join the sets with rescaled(1.0)"
            )
        S = max(self.steps, other.steps)
        return self._like(torch.cat([k.mask().expand(S, -1, -1) for k in (self, other)], 2))

    def rescaled(self, scale: float) -> Self:
        """Return the same units with another scale: 1.0 for an input masked and scaled already."""
        return replace(self, scale=scale)  # type: ignore[type-var]

    def reordered(self, order: Tensor) -> Self:
        """Return the same with samples in another order, int64 ``[B]``; shared sets have none."""
        if self.shared:
            return self
        return self._like(self.mask().index_select(1, order.to(self.mask().device)))

    def shifted(self, T: int) -> Self:
        """Serve an output that is fed back: step t keeps what t - 1 kept, step 0 keeps all."""
        mask = self.mask()
        earlier = mask.expand(T, -1, -1)[: max(T - 1, 0)]
        return self._like(torch.cat([torch.ones_like(mask[:1]), earlier])[:T])

    def apply(self, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
        """Drop and scale.

        Args:
            x: ``[T, B, D]``, or packed rows ``[sum(batch_sizes), D]``.
            batch_sizes: int64 ``[T]`` on the CPU, as in a ``PackedSequence``; None if not packed.
        """
        if applying.launches(x):
            return self._launched(x, batch_sizes)
        kept = applying.as_bits(applying.sent(self.narrow(), x.device), x)
        if batch_sizes is not None:
            kept = self._of_rows(kept, batch_sizes, x.shape[0])
        return applying.dropped(x, kept, self.scale)

    def _launched(self, x: Tensor, batch_sizes: Tensor | None) -> Tensor:
        """Drop and scale in one launch, as torch's dropout does: what is dropped times zero."""
        if not x.numel():
            return x
        factors = self.factors(x)
        if batch_sizes is None:
            return x * factors
        T, R = len(batch_sizes), x.shape[0]
        if bool((batch_sizes * T == R).all()):  # all of one length: the factors broadcast
            return (x.reshape(T, R // T, -1) * factors).view(x.shape)
        return x * self._of_rows(factors, batch_sizes, R)

    def factors(self, x: Tensor) -> Tensor:
        """Return what each unit is multiplied by, ``[S, 1 or B, D]``, of x's dtype and on its
        device: what all samples share travels once."""
        mask = self.narrow()
        return applying.sent(mask.to(x.dtype) * self.scale, x.device)

    def dropped(self, device: torch.device) -> Tensor:
        """Return the opposite of the mask, ``[S, 1 or B, D]``, on a device, as compact."""
        return applying.sent(~self.narrow(), device)

    @staticmethod
    def _of_rows(mask: Tensor, batch_sizes: Tensor, R: int) -> Tensor:
        """Return the mask of each of R packed rows, ``[R, D]``, or of all of them, ``[1, D]``."""
        S, B, _ = mask.shape
        if B == 1 and mask.device == batch_sizes.device:  # what a step's rows share
            steps = mask[:, 0]
            return steps.repeat_interleave(batch_sizes, 0, output_size=R) if S > 1 else steps
        if S * B == 1:
            return mask[0]
        rows = rows_of_mask(batch_sizes, R, mask.device, B, S > 1)
        return mask.flatten(0, 1).index_select(0, rows)

    def apply_alone(self, x: Tensor) -> Tensor:
        """Drop and scale the rows ``[B, D]`` of the only step there is."""
        if applying.launches(x):
            return x * self.factors(x)[0]
        return applying.dropped(x, applying.sent(self.narrow()[0], x.device), self.scale)

    def apply_step(self, x: Tensor, t: int) -> Tensor:
        """Drop and scale the rows ``[n, D]`` of step t: those of the first n samples."""
        mask = self.narrow()[self._set(t)]  # [1 or B, D]
        mask = applying.sent(mask if len(mask) == 1 else mask[: len(x)], x.device)
        return applying.dropped(x, mask, self.scale)


@dataclass(frozen=True, eq=False)
class KeepSets(Keep):
    """The kept units of each step, shared by the whole batch.

    Args:
        idx: int32 ``[S, D]``; in row t the first ``count[t]`` entries are the kept units in
            ascending order, the rest is padding (shapes do not depend on the draw).
        count: int32 ``[S]``; how many units each step keeps, 0 to D.
        scale: what kept values are multiplied by.

    Raises:
        TypeError, ValueError: wrong dtype or shape, a count or a unit out of range, or units
            that are not ascending.
    """

    idx: Tensor
    count: Tensor
    scale: float

    def __post_init__(self) -> None:
        idx, count = self.idx, self.count
        if idx.dtype != torch.int32 or count.dtype != torch.int32:
            raise TypeError(
                f"keep sets need int32 idx and count, got {idx.dtype} and {count.dtype}"
            )
        if idx.dim() != 2 or count.shape != idx.shape[:1]:
            raise ValueError(
                "keep sets need idx [S, D] and count [S], "
                f"got {list(idx.shape)} and {list(count.shape)}"
            )
        D = self.width
        if count.numel() and not 0 <= int(count.min()) <= int(count.max()) <= D:
            raise ValueError(
                f"keep counts must lie in [0, {D}] (the width), "
                f"got {int(count.min())} to {int(count.max())}"
            )
        kept = self._kept()
        outside = kept & ((idx < 0) | (idx >= D))
        if outside.any():
            raise ValueError(
                f"kept unit {int(idx[outside][0])} is out of range: "
                f"a width of {D} has units 0 to {D - 1}"
            )
        if (kept[:, 1:] & (idx[:, 1:] <= idx[:, :-1])).any():
            raise ValueError("the kept units of a step must be ascending, without repeats")

    @classmethod
    def from_mask(cls, mask: Tensor, scale: float) -> KeepSets:
        """Return the sets of a boolean mask ``[S, D]``, True is kept."""
        idx, count = compact(mask)
        return cls._trusted(idx, count, scale)

    @classmethod
    def _trusted(cls, idx: Tensor, count: Tensor, scale: float) -> KeepSets:
        """Make sets that hold by construction: checking them would cost more than drawing them."""
        sets = object.__new__(cls)
        for name, value in (("idx", idx), ("count", count), ("scale", scale)):
            object.__setattr__(sets, name, value)
        return sets

    def _like(self, mask: Tensor) -> KeepSets:
        return self.from_mask(mask[:, 0], self.scale)

    def _kept(self) -> Tensor:
        """Return, boolean ``[S, D]``, which entries of ``idx`` are units and not padding."""
        return torch.arange(self.width, device=self.idx.device) < self.count[:, None]

    @property
    def steps(self) -> int:
        return self.idx.shape[0]

    @property
    def width(self) -> int:
        return self.idx.shape[1]

    @cached_property
    def counts(self) -> list[int]:
        """Return ``count`` as plain numbers, read once."""
        return self.count.tolist()

    def kept(self, t: int) -> Tensor:
        """Return the units kept at step t: int32 ``[count[t]]``."""
        s = 0 if self.steps == 1 else t
        return self.idx[s, : self.counts[s]]

    def to(self, device: torch.device | str) -> KeepSets:
        if self.idx.device == torch.device(device):
            return self
        sets = self._trusted(self.idx.to(device), self.count.to(device), self.scale)
        sets.__dict__["counts"] = self.counts  # no device is asked for them again
        return sets

    def mask(self) -> Tensor:
        padding = torch.full_like(self.idx, self.width)  # a column of its own, cut off below
        units = torch.where(self._kept(), self.idx, padding).long()
        mask = self.idx.new_zeros(self.steps, self.width + 1, dtype=torch.bool)
        return mask.scatter_(1, units, True)[:, None, : self.width]


@dataclass(frozen=True, eq=False)
class KeepMask(Keep):
    """The kept units of each step and sample: the dense form, for ``space="random"``.

    Args:
        dense: boolean ``[S, B, D]``, True is kept.
        scale: what kept values are multiplied by.

    Raises:
        TypeError, ValueError: wrong dtype or shape.
    """

    dense: Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.dense.dtype != torch.bool:
            raise TypeError(f"a keep mask needs dtype torch.bool, got {self.dense.dtype}")
        if self.dense.dim() != 3:
            raise ValueError(f"a keep mask needs shape [S, B, D], got {list(self.dense.shape)}")

    def _like(self, mask: Tensor) -> KeepMask:
        return KeepMask(mask, self.scale)

    def to(self, device: torch.device | str) -> KeepMask:
        return replace(self, dense=self.dense.to(device))

    @property
    def steps(self) -> int:
        return self.dense.shape[0]

    @property
    def width(self) -> int:
        return self.dense.shape[2]

    def mask(self) -> Tensor:
        return self.dense

    @property
    def samples(self) -> int:
        return self.dense.shape[1]

    @property
    def shared(self) -> bool:
        return self.narrow().shape[1] == 1  # a view of one row a step
