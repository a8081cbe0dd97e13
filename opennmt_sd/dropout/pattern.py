"""The rule of a dropout: which units may go (space x time), how many, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from opennmt_sd._compile import traceable
from opennmt_sd.compat import is_compiling
from opennmt_sd.dropout.keep import Keep, KeepMask, KeepSets
from opennmt_sd.dropout.philox import (
    draw_exact_mask,
    draw_exact_sets,
    draw_mask,
    draw_seed,
    draw_sets,
)
from opennmt_sd.dropout.seeded import SeededMask

SPACES = ("structured", "random")
TIMES = ("random", "fixed")
COUNTS = ("bernoulli", "exact")


@dataclass(frozen=True, eq=False)
class DropoutPattern(float):
    """Which units a dropout drops: a rate, a choice in space and a choice in time.

    It is its rate wherever a number is asked for: ``lstm.dropout`` can be compared, computed with
    and written as JSON, as ``nn.LSTM``'s can. A bare number equals Case III at that rate.

    Args:
        p: share of units dropped, in [0, 1). Default 0.5.
        space: ``"structured"`` (default; the batch shares one set) or ``"random"`` (every sample
            has its own).
        time: ``"random"`` (default; a new set at each step) or ``"fixed"`` (one set for a whole
            forward call; nothing is carried from call to call).
        count: ``"bernoulli"`` (default; each unit is kept with probability 1 - p, independently) or
            ``"exact"`` (each set keeps k of its D units, any k alike, and scales by D / k: sets of
            one size, whose gradient is less noisy; see :func:`kept_units`). Exact sets are shared
            by the batch.

    Raises:
        ValueError: the rate is outside [0, 1), a choice is unknown, or an exact count goes with a
            random space.
        TypeError: the rate is not a number.
    """

    p: float = 0.5
    space: str = "structured"
    time: str = "random"
    count: str = "bernoulli"

    def __new__(cls, p: float = 0.5, *_: str, **__: str) -> DropoutPattern:
        if isinstance(p, DropoutPattern):
            raise TypeError(f"dropout rate must be a number in [0, 1), got {p!r}")
        return super().__new__(cls, check_rate(p))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DropoutPattern):
            return (self.p, *self._choices) == (other.p, *other._choices)
        return self._choices == (SPACES[0], TIMES[0], COUNTS[0]) and self.p == other

    def __repr__(self) -> str:
        count = ", count='exact'" if self.exact else ""
        return f"DropoutPattern(p={self.p}, space={self.space!r}, time={self.time!r}{count})"

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.p)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_rate(self.p))
        choices = ("space", SPACES), ("time", TIMES), ("count", COUNTS)
        for (name, allowed), value in zip(choices, self._choices):
            if value not in allowed:
                raise ValueError(
                    f"dropout {name} {value!r} is unknown: use one of {', '.join(allowed)}"
                )
        if self.exact and not self.structured:
            raise ValueError(
                "dropout count 'exact' needs space 'structured': samples that each drop their own "
                "units have no set of one size to share; leave out count, or take that space"
            )

    @classmethod
    def of(cls, value: DropoutPattern | float | None) -> DropoutPattern:
        """Return a pattern as it is, a bare rate as Case III, None as "drop nothing"."""
        if isinstance(value, cls):
            return value
        return cls(0.0 if value is None else value)

    @property
    def active(self) -> bool:
        """Return whether this pattern drops anything at all."""
        return self.p > 0

    @property
    def structured(self) -> bool:
        return self.space == "structured"

    @property
    def shared(self) -> bool:
        """Return whether all steps and samples share one set (Case IV)."""
        return self.structured and self.time == "fixed"

    @property
    def exact(self) -> bool:
        return self.count == "exact"

    @property
    def _choices(self) -> tuple[str, str, str]:
        return self.space, self.time, self.count

    @property
    def scale(self) -> float:
        """Return what kept values are multiplied by; an exact draw: by D / k, of its width."""
        return 1 / (1 - self.p)

    def at(self, p: float) -> DropoutPattern:
        """Return the same pattern at another rate."""
        return DropoutPattern(p, *self._choices)

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
            return KeepSets.from_mask(torch.ones((S, D), dtype=torch.bool, device="cpu"), 1.0)
        if self.exact:
            k, scale = self._exactly(D)
            idx, count = draw_exact_sets(draw_seed(generator), S, D, k)
            return KeepSets._trusted(idx, count, scale)
        idx, count = draw_sets(draw_seed(generator), S, D, self.p)
        return KeepSets._trusted(idx, count, self.scale)

    def _exactly(self, D: int) -> tuple[int, float]:
        """Return how many of D units an exact set keeps, and what they are multiplied by."""
        k = kept_units(self.p, D)
        return k, D / k if k else 1.0

    @traceable
    def draw_mask(
        self, T: int, B: int, D: int, generator: torch.Generator | None = None
    ) -> KeepMask:
        """Draw a mask whatever the pattern, of what :meth:`draw` would keep: quicker where the
        input is masked and then multiplied densely."""
        if not self.p or is_compiling():
            return self._mask(T, B, D, generator)
        # Drawn where it is used. This is as much of a small dropout as the product is.
        seed, shape = draw_seed(generator), self._differing(T, B, D)
        k, scale = self._exactly(D) if self.exact else (None, self.scale)
        return SeededMask.of(seed, shape, B, self.p, scale, k)

    def _mask(self, T: int, B: int, D: int, generator: torch.Generator | None) -> KeepMask:
        S = self._steps(T)
        if not self.active:
            return KeepMask(torch.ones((S, B, D), dtype=torch.bool, device="cpu"), 1.0)
        if self.exact:
            k, scale = self._exactly(D)
            mask = draw_exact_mask(draw_seed(generator), S, D, k)
            return KeepMask(mask[:, None].expand(S, B, D), scale)
        mask = draw_mask(draw_seed(generator), self._differing(T, B, D), self.p)
        return KeepMask(mask.expand(S, B, D), self.scale)

    def _differing(self, T: int, B: int, D: int) -> tuple[int, int, int]:
        """Return the shape of what differs in a mask: steps, samples, units."""
        return self._steps(T), 1 if self.structured else B, D

    def _steps(self, T: int) -> int:
        """Return S: how many steps a draw holds."""
        return T if self.time == "random" else 1


def kept_units(p: float, D: int) -> int:
    """Return k, how many of D units an exact draw keeps: (1 - p) D to the nearest whole number, a
    half upwards, and at least one: a layer of one unit is never cut off.

    Example:
        >>> kept_units(0.5, 650), kept_units(0.5, 1), kept_units(0.65, 1500)
        (325, 1, 525)
    """
    half = 0.5 + 1e-9  # (1 - .9) * 15 is a little less than 1.5 in binary
    return min(max(int((1 - p) * D + half), 1), D)


def check_rate(p: object, name: str = "dropout rate") -> float:
    """Return ``p`` as a float in [0, 1).

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
