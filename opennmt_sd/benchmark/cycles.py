"""Cycles of a layer's products on a systolic array, by closed forms.

An array has R x C multiply-adders, which hold one operand or the result of a
product still while the others stream through. For ``[M, K] x [K, N]``, by what stays:

    os  output   ceil(M/R) ceil(N/C) (R + C + K - 2)
    ws  weights  ceil(K/R) ceil(N/C) (2 R + C + M - 2)     the second operand
    is  inputs   ceil(K/R) ceil(M/C) (2 R + C + N - 2)     the first one

without stalls of memory. Source: Samajdar et al., "A Systematic Methodology for Characterizing
Scalability of DNN Accelerators using SCALE-Sim", ISPASS 2020, section III.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from opennmt_sd.dropout import kept_units

ARRAYS = (32, 128, 256)  # R = C
DATAFLOWS = ("os", "ws", "is")
PHASES = ("FP", "BP", "WG", "REC-FP", "REC-BP", "REC-WG")


def cycles(M: int, K: int, N: int, size: int, dataflow: str) -> int:
    """Count the cycles of ``[M, K] x [K, N]`` on a square array.

    Raises:
        ValueError: an unknown dataflow.
    """
    if dataflow == "os":
        return _folds(M, size) * _folds(N, size) * (2 * size + K - 2)
    if dataflow == "ws":
        return _folds(K, size) * _folds(N, size) * (3 * size + M - 2)
    if dataflow == "is":
        return _folds(K, size) * _folds(M, size) * (3 * size + N - 2)
    raise ValueError(f"dataflow {dataflow!r} is unknown: use one of {', '.join(DATAFLOWS)}")


def _folds(n: int, size: int) -> int:
    return -(-n // size)


@dataclass(frozen=True)
class Case:
    """A recurrent layer in one direction.

    Args:
        name: its task and width.
        D, H: inputs, hidden units.
        p: rate, of the input and of the state.
        T, B: steps, sequences.
        gates: rows of a weight, in units of H.
    """

    name: str
    D: int
    H: int
    p: float
    T: int
    B: int
    gates: int = 4

    def product(self, phase: str, rows: int, share: float) -> tuple[int, int, int]:
        """Return M, K, N of a phase over so many rows, where a share of the units is dropped."""
        units, outputs = self.H if phase.startswith("REC") else self.D, self.gates * self.H
        kept = kept_units(share, units)
        return {
            "FP": (rows, kept, outputs),  # x[:, K] W[:, K]^T
            "BP": (rows, outputs, kept),  # dy W[:, K]
            "WG": (outputs, rows, kept),  # dy^T x[:, K]
        }[phase.removeprefix("REC-")]


CASES = [
    Case("LM medium 650", 650, 650, 0.5, 35, 20),
    Case("LM large 1500", 1500, 1500, 0.65, 35, 20),
    Case("tagger 130 to 200", 130, 200, 0.5, 20, 10),
    Case("translator 500", 500, 500, 0.3, 25, 64),
]


@dataclass(frozen=True)
class Row:
    """Cycles of one phase of a layer over all its steps.

    Args:
        case, phase, size, dataflow: of what, on what.
        p: rate.
        steps: dense, a step at a time.
        batched: dense, all steps as one product; None where a step waits for the one before.
        case3: compacted, a set a step.
        case4: compacted, one set for all steps, which are one product; None as ``batched``.
    """

    case: str
    phase: str
    size: int
    dataflow: str
    p: float
    steps: int
    batched: int | None
    case3: int
    case4: int | None

    @property
    def best_dense(self) -> int:
        """Return what a dense layer takes at best."""
        return min(self.steps, self.batched or self.steps)

    @property
    def gain(self) -> float:
        """Return how much quicker Case III is than the best dense way."""
        return self.best_dense / self.case3

    @property
    def gain4(self) -> float:
        """Return how much quicker Case IV is than the best dense way, in its own best way."""
        return self.best_dense / min(self.case3, self.case4 or self.case3)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "gain4": self.gain4}


def rows(cases: Iterable[Case] | None = None) -> Iterator[Row]:
    """Give every phase of every layer on every array."""
    for case in CASES if cases is None else cases:
        for size in ARRAYS:
            for dataflow in DATAFLOWS:
                yield from (_row(case, phase, size, dataflow) for phase in PHASES)


def _row(case: Case, phase: str, size: int, dataflow: str) -> Row:
    def taken(share: float, batched: bool) -> int:
        rows, times = (case.T * case.B, 1) if batched else (case.B, case.T)
        return times * cycles(*case.product(phase, rows, share), size, dataflow)

    waits = phase in ("REC-FP", "REC-BP")
    return Row(
        case=case.name, phase=phase, size=size, dataflow=dataflow, p=case.p,
        steps=taken(0, False), batched=None if waits else taken(0, True),
        case3=taken(case.p, False), case4=None if waits else taken(case.p, True),
    )  # fmt: skip
