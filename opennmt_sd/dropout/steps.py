"""Dropping and scaling a step at a time, where a decoder's step waits for the one before.

Axis names: T time, B batch, D units; S is T, or 1 where one set serves every step.
"""

from __future__ import annotations

from torch import Tensor

from opennmt_sd.dropout.apply import dropped, launches, sent
from opennmt_sd.dropout.keep import Keep


class Steps:
    """Applies keep sets a step at a time; they are sent to x's device once for all steps."""

    def __init__(self, keep: Keep, x: Tensor) -> None:
        self.keep = keep
        launched = launches(x)
        self._factors = keep.factors(x) if launched else None  # [S, 1 or B, D]
        self._mask = None if launched else sent(keep.narrow(), x.device)  # the same

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Drop and scale the rows ``[n, D]`` of step t: those of the first n samples."""
        if self._mask is None:
            return x * _of(self._factors, x, t)
        return dropped(x, _of(self._mask, x, t), self.keep.scale)


def _of(sets: Tensor | None, x: Tensor, t: int) -> Tensor:
    """Return what is one step's, for the rows of x."""
    assert sets is not None
    of_step = sets[t if len(sets) > 1 else 0]  # [1 or B, D]
    return of_step[: len(x)] if len(of_step) > 1 else of_step
