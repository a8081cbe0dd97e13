"""Suite ``systolic``: cycles of a layer's products on a systolic array. Nothing is timed."""

from __future__ import annotations

from collections.abc import Sequence

from opennmt_sd.benchmark.cycles import CASES, Row, rows

__all__ = ["CASES", "TITLE", "draw", "rows", "table"]

TITLE = "cycles, in thousands; x: over Case III's"


def table(found: Sequence[Row]) -> list[dict[str, str]]:
    """Return the cells of each line."""
    return [
        {"case": row.case, "array": f"{row.size}", "holds": row.dataflow, "phase": row.phase,
         "p": f"{row.p:g}", "dense, steps": _k(row.steps), "dense, batched": _k(row.batched),
         "Case III": _k(row.case3), "Case IV": _k(row.case4),
         "x steps": f"{row.steps / row.case3:.2f}",
         "x best dense": f"{row.gain:.2f}", "x Case IV": f"{row.gain4:.2f}"}
        for row in found
    ]  # fmt: skip


def _k(n: int | None) -> str:
    return "" if n is None else f"{n / 1e3:,.0f}"


def draw(found: Sequence[Row], path: str) -> None:
    """Draw the gains, to a PNG, SVG or PDF."""
    from opennmt_sd.benchmark import cycles_plot  # with matplotlib

    cycles_plot.draw(found, path)
