"""What a training has come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a training has come to.

    Args:
        score: the best score on the validation data.
        update: the number of updates it was reached with.
        updates: how many updates there were.
        checkpoint: the file with the weights that have this score.
        test: the scores of these weights on the test data, where the plan asks for them.
    """

    score: float
    update: int
    updates: int
    checkpoint: Path
    test: dict[str, float]
