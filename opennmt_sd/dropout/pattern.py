"""The rule of a dropout: which units may go (space x time), how many, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from opennmt_sd._compile import traceable
from opennmt_sd.dropout.keep import Keep, KeepMask, KeepSets
from opennmt_sd.dropout.philox import draw_mask, draw_seed, draw_sets

SPACES = ("structured", "random")
TIMES = ("random", "fixed")


@dataclass(frozen=True, eq=False)
class DropoutPattern(float):
    """Which units a dropout drops: a rate, a choice in space and a choice in time.

    It is its rate wherever a number is asked for: ``lstm.dropout`` can be compared, computed with
    and written as JSON, as ``nn.LSTM``'s can. A bare number equals Case III at that rate.

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

    def __new__(cls, p: float = 0.5, *_: str, **__: str) -> DropoutPattern:
        if isinstance(p, DropoutPattern):
            raise TypeError(f"dropout rate must be a number in [0, 1), got {p!r}")
        return super().__new__(cls, check_rate(p))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DropoutPattern):
            return (self.p, self.space, self.time) == (other.p, other.space, other.time)
        return (self.space, self.time) == (SPACES[0], TIMES[0]) and self.p == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.p)

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
            return KeepSets.from_mask(torch.ones((S, D), dtype=torch.bool, device="cpu"), 1.0)
        idx, count = draw_sets(draw_seed(generator), S, D, self.p)
        return KeepSets._trusted(idx, count, self.scale)

    @traceable
    def draw_mask(
        self, T: int, B: int, D: int, generator: torch.Generator | None = None
    ) -> KeepMask:
        """Draw a mask whatever the pattern, of what :meth:`draw` would keep: quicker where the
        input is masked and then multiplied densely."""
        return self._mask(T, B, D, generator)

    def _mask(self, T: int, B: int, D: int, generator: torch.Generator | None) -> KeepMask:
        S = self._steps(T)
        if not self.active:
            return KeepMask(torch.ones((S, B, D), dtype=torch.bool, device="cpu"), 1.0)
        shape = (S, 1 if self.structured else B, D)
        mask = draw_mask(draw_seed(generator), shape, self.p)
        return KeepMask(mask.expand(S, B, D), self.scale)

    def _steps(self, T: int) -> int:
        """Return S: how many steps a draw holds."""
        return T if self.time == "random" else 1


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
