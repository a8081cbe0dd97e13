"""The picture of suite ``systolic``: where leaving units out saves cycles, and where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no global state, no display

from opennmt_sd.benchmark.cycles import Row

INPUTS, RECURRENCE = ("FP", "BP", "WG"), ("REC-FP", "REC-BP")
BARS = (
    ("recurrence, Case III", RECURRENCE, "case3", "tab:purple"),
    ("inputs, Case III", INPUTS, "case3", "tab:blue"),
    ("inputs, Case IV", INPUTS, "best4", "tab:green"),
)


def draw(rows: Sequence[Row], path: str) -> None:
    """Draw the gain over the best dense way, a panel for each layer and dataflow."""
    cases = list(dict.fromkeys(row.case for row in rows))
    flows = list(dict.fromkeys(row.dataflow for row in rows))
    figure = Figure(figsize=(3.4 * len(cases), 2.6 * len(flows)), layout="constrained")
    panels = figure.subplots(len(flows), len(cases), squeeze=False, sharey=True)
    for line, dataflow in zip(panels, flows):
        for axes, case in zip(line, cases):
            chosen = [row for row in rows if (row.case, row.dataflow) == (case, dataflow)]
            _panel(axes, chosen)
            axes.set_title(f"{case}, {dataflow}, p {chosen[0].p:g}", fontsize=9)
    panels[0][0].legend(fontsize=7)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)


def gain(rows: Sequence[Row], phases: Sequence[str], way: str) -> float:
    """Return dense cycles, each phase in its best way, over those of a way."""
    chosen = [row for row in rows if row.phase in phases]
    taken = [row.case3 if way == "case3" else min(row.case3, row.case4 or row.case3)
             for row in chosen]  # fmt: skip
    return sum(row.best_dense for row in chosen) / sum(taken)


def _panel(axes: Any, rows: Sequence[Row]) -> None:
    sizes = list(dict.fromkeys(row.size for row in rows))
    for shift, (label, phases, way, colour) in enumerate(BARS):
        gains = [gain([r for r in rows if r.size == size], phases, way) for size in sizes]
        places = [n + 0.27 * (shift - 1) for n in range(len(sizes))]
        axes.bar(places, gains, 0.25, label=label, color=colour)
    axes.axhline(1, color="black", linewidth=0.8)
    ideal = 1 / (1 - rows[0].p)
    axes.axhline(ideal, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(sizes)), [f"{n} x {n}" for n in sizes])
