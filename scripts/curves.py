"""The curves of a plan's runs as a picture: a score against updates, and against seconds."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from statistics import mean

from plans import Plan
from preparing import SourceError

from opennmt_sd import atomic

Points = list[tuple[float, float]]
AXES = ("update", "seconds")


def of_runs(plan: Plan, setting: str, axis: str) -> list[Points]:
    """Return the (axis, score) of each run of a setting."""
    rows = [row for row in plan.points() if row["setting"] == setting]
    return [[(float(row[axis]), float(row["score"])) for row in run]
            for _, run in groupby(rows, lambda row: row["seed"])]  # fmt: skip


def middle(runs: list[Points]) -> Points:
    """Return the mean over runs, point by point, as far as all of them go."""
    return [(mean(x for x, _ in points), mean(y for _, y in points)) for points in zip(*runs)]


def draw(plan: Plan, picture: Path) -> None:
    """Write a PNG: a thin line a run, a thick one for the mean of a setting.

    Raises:
        SourceError: there are no curves.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display
    from matplotlib.ticker import LogLocator, NullFormatter

    scores = [float(row["score"]) for row in plan.points()]
    if not scores:
        raise SourceError(
            f"{plan.curves} has no curve: a plan with `curve:` leaves them as it runs"
        )
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axis, panel in zip(AXES, panels):
        for i, setting in enumerate(plan.settings):
            runs = of_runs(plan, setting, axis)
            for run in runs:
                panel.plot(*zip(*run), color=f"C{i}", alpha=0.3, linewidth=0.7)
            if runs:
                label = f"{setting}, n {len(runs)}"
                panel.plot(*zip(*middle(runs)), color=f"C{i}", linewidth=2, label=label)
        panel.set_xlabel("updates" if axis == "update" else "seconds since the run began")
        panel.grid(alpha=0.3)
    if min(scores) > 0 and max(scores) > 10 * min(scores):  # the first ones are of new weights
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:,.0f}")
        panels[0].yaxis.set_minor_formatter(NullFormatter())
    devices = ", ".join(sorted({row["device"] for row in plan.rows()}))
    figure.suptitle(f"{plan.path.stem} ({devices}; threads: {plan.threads})")
    panels[0].legend()
    with atomic.writer(picture) as file:
        figure.savefig(file, format="png", dpi=110)
