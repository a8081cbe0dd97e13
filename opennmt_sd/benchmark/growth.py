"""Suite ``growth``: how the gain grows with width and rate, and where it stops.

One square layer, H inputs to 4H gates, for widths and rates; FP, BP and WG over all steps, and the
recurrence. With a picture: the gain, and a roofline of what each phase did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from opennmt_sd.benchmark import ops
from opennmt_sd.benchmark.row import Row

RATES = (0.0, 0.3, 0.5, 0.65, 0.8, 0.9)


@dataclass(frozen=True)
class Width:
    """Hidden units, as many as inputs."""

    H: int

    @property
    def name(self) -> str:
        return str(self.H)


CASES = [Width(H) for H in (256, 512, 1024, 2048, 4096)]


def run(repeats: int = 15, cases: Sequence[Width] | None = None) -> Iterator[Row]:
    """Row after row; wide layers take fewer rounds.

    Raises:
        RedGateError: a phase computes something wrong.
    """
    for width in CASES if cases is None else cases:
        rounds = max(3, repeats if width.H < 1500 else repeats // 3)
        for p in RATES:
            parts: list[ops.Case] = [ops.Linear(width.H, 4 * width.H, p),
                                     ops.Recurrent(width.H, p)]  # fmt: skip
            for row in ops.run(rounds, parts):
                yield replace(row, suite="growth", case=width.name)


def bytes_moved(row: Row) -> float:
    """Count the bytes that a phase must read and write: each operand once; the weight once
    a sequence where all steps are one product, once a step in the recurrence."""
    H, rows, kept = int(row.case), ops.T * ops.B, 1 - row.p
    weight = 4 * H * H * kept * (ops.T if row.phase in ("REC-FP", "REC-BP") else 1)
    return 4.0 * (weight + rows * (4 * H + H * kept))
