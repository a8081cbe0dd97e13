"""What a measurement says, and the gate it must pass first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured case.

    Args:
        suite: ``"ops"``, ``"lstm"``, ...
        case: width and places, such as ``"650 NR+RH"``.
        phase: FP, BP, WG, REC-FP, REC-BP, REC-WG, ``step`` or ``eval``.
        p: drop rate.
        torch_ms: what a user would run otherwise.
        torch_bf16_ms: the same under autocast to bfloat16; of a recurrent layer on a CPU, where
            torch can.
        dense_ms: our engine with nothing dropped.
        ours_ms: our engine at p.
        loop_ms: ours, a recurrence with dropout as a loop of torch's ops; on a GPU alone.
        ideal: dense FLOPs over the FLOPs left (expected over the draws).
        max_rel_err: the largest error over the largest value, against a float64 reference; over
            the outputs and all gradients.
        gflops: what our engine did a second, kept work only; None where it is not one product.
        draw_ms: of it, drawing keep sets; on a CPU alone: a GPU draws in a launch.
        units_per_s, torch_units_per_s: words or sentences a second.
        peak_mb, torch_peak_mb: memory (:mod:`.memory`).
    """

    suite: str
    case: str
    phase: str
    p: float
    torch_ms: float
    dense_ms: float
    ours_ms: float
    ideal: float
    max_rel_err: float
    gflops: float | None = None
    loop_ms: float | None = None
    torch_bf16_ms: float | None = None
    draw_ms: float | None = None
    units_per_s: float | None = None
    torch_units_per_s: float | None = None
    peak_mb: float | None = None
    torch_peak_mb: float | None = None

    @property
    def speedup_vs_torch(self) -> float:
        return self.torch_ms / self.ours_ms

    @property
    def speedup_vs_dense(self) -> float:
        return self.dense_ms / self.ours_ms

    @property
    def speedup_vs_loop(self) -> float | None:
        return None if self.loop_ms is None else self.loop_ms / self.ours_ms

    @property
    def speedup_vs_torch_bf16(self) -> float | None:
        return None if self.torch_bf16_ms is None else self.torch_bf16_ms / self.ours_ms

    @property
    def share_of_ideal(self) -> float:
        """Return how much of the ideal the speed-up over torch is."""
        return self.speedup_vs_torch / self.ideal

    def as_json(self) -> dict[str, Any]:
        derived = (
            "speedup_vs_torch", "speedup_vs_torch_bf16", "speedup_vs_dense", "speedup_vs_loop",
            "share_of_ideal",
        )  # fmt: skip
        fields = {**asdict(self), **{name: getattr(self, name) for name in derived}}
        return {name: value for name, value in fields.items() if value is not None}


class RedGateError(RuntimeError):
    """Results are wrong: there is no speed to speak of."""


def relative_error(got: Iterable[Tensor], want: Iterable[Tensor]) -> float:
    """Return the largest of all pairs' max |got - want| / max |want|; NaN anywhere is infinite."""
    worst = 0.0
    for ours, truth in zip((t.detach() for t in got), (t.detach() for t in want), strict=True):
        if ours.shape != truth.shape:
            return float("inf")
        scale = max(float(truth.abs().max()), 1e-30) if truth.numel() else 1.0
        error = float((ours.double() - truth.double()).abs().max()) / scale if truth.numel() else 0
        worst = max(worst, error if error == error else float("inf"))  # noqa: PLR0124 - NaN
    return worst


def gate(case: str, error: float, tolerance: float) -> float:
    """Give the error back, if it is small enough.

    Raises:
        RedGateError: it is not.
    """
    if not error <= tolerance:
        raise RedGateError(
            f"{case}: the largest relative error is {error:.1e}, {tolerance:.0e} is allowed: "
            "results are wrong, so no speed is reported"
        )
    return error


def doubled(*tensors: Tensor) -> list[Tensor]:
    return [t.to(torch.float64) for t in tensors]
