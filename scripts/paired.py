"""Means by seeds, and paired differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy import stats


@dataclass(frozen=True)
class Sample:
    """Some values.

    Args:
        n: how many.
        mean, sd: theirs; the standard deviation of a single one is NaN.
    """

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Return the mean and the standard deviation of one value or more."""
        return cls(len(values), mean(values), stdev(values) if len(values) > 1 else math.nan)

    @property
    def half(self) -> float:
        """Return half the width of the mean's 95 % interval by Student's t, NaN of one value."""
        if self.n < 2:
            return math.nan
        return float(stats.t.ppf(0.975, self.n - 1)) * self.sd / math.sqrt(self.n)


def differences(ours: dict[int, float], theirs: dict[int, float]) -> Sample | None:
    """Return ours minus theirs over the seeds that both have; None: they share none."""
    found = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    return Sample.of(found) if found else None
