"""What is dropped: the pattern (space x time), the rate, and the draw.

A pattern is a rule; a draw turns it into data that every layer understands:

=====================  ==============================  ==============================
\\                      ``time="random"``               ``time="fixed"``
=====================  ==============================  ==============================
``space="random"``     Case I, ordinary dropout        Case II, variational dropout
``space="structured"`` **Case III**, the default       Case IV
=====================  ==============================  ==============================

Structured in space: the whole batch drops the same units at a step, so a matrix product needs
only the kept ones. Random in time: each step draws its own set. Kept values are scaled by
1 / (1 - p) ("inverted dropout"), and nothing happens in evaluation.

Source: Sarma et al., "Structured in Space, Randomized in Time", NeurIPS 2021, section 3.

Axis names: T time, B batch, D units; S is T for ``time="random"`` and 1 for ``time="fixed"``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opennmt_sd.draw import compact, draw_mask, draw_seed, draw_sets
from opennmt_sd.eager import traceable

if TYPE_CHECKING:
    from typing_extensions import Self

SPACES = ("structured", "random")
TIMES = ("random", "fixed")


@dataclass(frozen=True)
class DropoutPattern:
    """Which units a dropout drops: a rate, a choice in space and a choice in time.

    Args:
        p: share of units dropped, in [0, 1). Each unit is kept with probability 1 - p,
            independently. Default 0.5.
        space: ``"structured"`` (default; the batch shares one set) or ``"random"`` (every sample
            has its own).
        time: ``"random"`` (default; a new set at each step) or ``"fixed"`` (one set for a whole
            forward call; nothing is carried from call to call).

    Raises:
        ValueError: the rate is outside [0, 1), or a choice is unknown.
        TypeError: the rate is not a number.
    """

    p: float = 0.5
    space: str = "structured"
    time: str = "random"

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_rate(self.p))
        for name, allowed in (("space", SPACES), ("time", TIMES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"dropout {name} {value!r} is unknown: use one of {', '.join(allowed)}"
                )

    @classmethod
    def of(cls, value: DropoutPattern | float | None) -> DropoutPattern:
        """A pattern as it is; a bare rate as Case III at that rate; None as "drop nothing"."""
        if isinstance(value, cls):
            return value
        return cls(0.0 if value is None else value)  # type: ignore[arg-type]

    @property
    def active(self) -> bool:
        """Whether this pattern drops anything at all."""
        return self.p > 0

    @property
    def structured(self) -> bool:
        return self.space == "structured"

    @property
    def scale(self) -> float:
        return 1 / (1 - self.p)

    @traceable
    def draw(self, T: int, B: int, D: int, generator: torch.Generator | None = None) -> Keep:
        """Draw what is kept over T steps of a batch of B with D units.

        Drawn on the CPU (from ``generator``, or torch's default CPU generator, which
        :func:`torch.manual_seed` governs), so that one seed gives the same sets on every engine
        and device.

        Returns:
            :class:`KeepSets` for a structured pattern, :class:`KeepMask` for a random one.
        """
        if not self.structured:
            return self._mask(T, B, D, generator)
        S = self._steps(T)
        if not self.active:
            return KeepSets.from_mask(torch.ones((S, D), dtype=torch.bool), 1.0)
        idx, count = draw_sets(draw_seed(generator), S, D, self.p)
        return KeepSets._trusted(idx, count, self.scale)

    @traceable
    def draw_mask(
        self, T: int, B: int, D: int, generator: torch.Generator | None = None
    ) -> KeepMask:
        """What :meth:`draw` would keep, as a mask whatever the pattern: quicker than sets where the
        input is masked and then multiplied densely."""
        return self._mask(T, B, D, generator)

    def _mask(self, T: int, B: int, D: int, generator: torch.Generator | None) -> KeepMask:
        S = self._steps(T)
        if not self.active:
            return KeepMask(torch.ones((S, B, D), dtype=torch.bool), 1.0)
        shape = (S, 1 if self.structured else B, D)
        mask = draw_mask(draw_seed(generator), shape, self.p)
        return KeepMask(mask.expand(S, B, D), self.scale)

    def _steps(self, T: int) -> int:
        """S: how many steps a draw holds."""
        return T if self.time == "random" else 1


class Keep:
    """What a draw keeps; the two forms are :class:`KeepSets` and :class:`KeepMask`.

    Everything a layer needs besides the raw data: how many steps it holds, how to cut, join and
    apply it. ``scale`` is what kept values are multiplied by.
    """

    scale: float

    def mask(self) -> Tensor:
        """Boolean ``[S, 1 or B, D]``, True is kept."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """The same, on another device."""
        raise NotImplementedError

    def _like(self, mask: Tensor) -> Self:
        """The same form and scale from another mask."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """S: T, or 1 where one set serves every step."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """D."""
        raise NotImplementedError

    def __getitem__(self, t: int) -> Self:
        """What step t keeps, alone (S = 1)."""
        s = 0 if self.steps == 1 else range(self.steps)[t]
        return self._like(self.mask()[s : s + 1])

    def cat(self, other: Self) -> Self:
        """Two inputs side by side: widths add up; scales must agree.

        Raises:
            ValueError: the scales differ, or one is structured and the other is not.
        """
        if type(self) is not type(other):
            raise ValueError("keep sets side by side must both be structured or both be random")
        if self.scale != other.scale:
            raise ValueError(
                f"keep sets side by side need one scale, got {self.scale} and {other.scale}: "
                "apply the dropout to both inputs first and join the sets with rescaled(1.0)"
            )
        S = max(self.steps, other.steps)
        return self._like(torch.cat([k.mask().expand(S, -1, -1) for k in (self, other)], 2))

    def rescaled(self, scale: float) -> Self:
        """The same units with another scale: 1.0 for an input masked and scaled already."""
        return replace(self, scale=scale)  # type: ignore[type-var]

    def shifted(self, T: int) -> Self:
        """For an output that is fed back: step t keeps what t - 1 kept, step 0 keeps all."""
        mask = self.mask()
        earlier = mask.expand(T, -1, -1)[: max(T - 1, 0)]
        return self._like(torch.cat([torch.ones_like(mask[:1]), earlier])[:T])

    def apply(self, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
        """Drop and scale.

        Args:
            x: ``[T, B, D]``, or packed rows ``[sum(batch_sizes), D]``.
            batch_sizes: int64 ``[T]`` on the CPU, as in a ``PackedSequence``; None if not packed.
        """
        mask = self.mask()
        if batch_sizes is not None:
            sizes = batch_sizes.tolist()
            steps = mask.expand(len(sizes), -1, -1)  # [T, 1 or B, D]
            rows = [m[:n] if m.shape[0] > 1 else m.expand(n, -1) for m, n in zip(steps, sizes)]
            mask = torch.cat(rows)  # [sum(batch_sizes), D]
        # `where`, not a product: a dropped NaN must not come back as 0 * NaN.
        return torch.where(mask.to(x.device), x * self.scale, x.new_zeros(()))


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
        """The sets of a boolean mask ``[S, D]``, True is kept."""
        idx, count = compact(mask)
        return cls._trusted(idx, count, scale)

    @classmethod
    def _trusted(cls, idx: Tensor, count: Tensor, scale: float) -> KeepSets:
        """Sets that hold by construction: checking them would cost more than drawing them."""
        sets = object.__new__(cls)
        for name, value in (("idx", idx), ("count", count), ("scale", scale)):
            object.__setattr__(sets, name, value)
        return sets

    def _like(self, mask: Tensor) -> KeepSets:
        return self.from_mask(mask[:, 0], self.scale)

    def _kept(self) -> Tensor:
        """Boolean ``[S, D]``: which entries of ``idx`` are units and not padding."""
        return torch.arange(self.width, device=self.idx.device) < self.count[:, None]

    @property
    def steps(self) -> int:
        return self.idx.shape[0]

    @property
    def width(self) -> int:
        return self.idx.shape[1]

    @cached_property
    def counts(self) -> list[int]:
        """``count`` as plain numbers, read once."""
        return self.count.tolist()

    def kept(self, t: int) -> Tensor:
        """The units kept at step t: int32 ``[count[t]]``."""
        s = 0 if self.steps == 1 else t
        return self.idx[s, : self.counts[s]]

    def to(self, device: torch.device | str) -> KeepSets:
        if self.idx.device == torch.device(device):
            return self
        return self._trusted(self.idx.to(device), self.count.to(device), self.scale)

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


def check_rate(p: object, name: str = "dropout rate") -> float:
    """``p`` as a float in [0, 1).

    Raises:
        TypeError: not a number. ValueError: outside [0, 1), or NaN.
    """
    if isinstance(p, (bool, str)) or not hasattr(p, "__float__"):
        raise TypeError(f"{name} must be a number in [0, 1), got {p!r}")
    rate = float(p)
    if not 0 <= rate < 1:
        raise ValueError(
            f"{name} {rate} is outside [0, 1): it is the share of units dropped; 0 drops nothing"
        )
    return rate
