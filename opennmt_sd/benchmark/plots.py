"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no global state, no display

from opennmt_sd.benchmark import growth, machine
from opennmt_sd.benchmark.machine import Ceilings
from opennmt_sd.benchmark.row import Row
from opennmt_sd.benchmark.target import CPU, Target

COLOURS = {"FP": "tab:blue", "BP": "tab:orange", "WG": "tab:green", "REC-FP": "tab:purple",
           "REC-BP": "tab:red", "REC-WG": "tab:brown", "BP+WG": "tab:orange"}  # fmt: skip


def draw(
    suite: str, rows: Sequence[Row], ceilings: Ceilings, path: str, target: Target = CPU
) -> None:
    """Draw the picture of a suite, to a PNG, SVG or PDF."""
    kinds = {"ops": _rates, "growth": _growth, "onmt": _phases, "eole": _phases}
    figure = kinds.get(suite, _steps)(rows, ceilings)
    facts = machine.describe(target)
    on = facts.get("device") or f"{facts['processor']}, {facts['threads']} threads"
    words = f"{on}, torch {facts['torch']}, engine {facts['engine']}"
    figure.text(0.005, 0.005, words, fontsize=7, color="gray")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)


def _figure(panels: int, height: float = 4.2) -> tuple[Figure, Any]:
    columns = min(panels, 3)
    lines = -(-panels // columns)
    figure = Figure(figsize=(4.6 * columns, height * lines), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(lines, columns, squeeze=False).flat


def _rates(rows: Sequence[Row], _: Ceilings) -> Figure:
    """Speed-up against the rate, a panel for each case."""
    cases = list(dict.fromkeys(row.case for row in rows))
    figure, all_axes = _figure(len(cases))
    for axes, case in zip(all_axes, cases):
        of_case = sorted((row for row in rows if row.case == case), key=lambda row: row.p)
        rates = [p / 100 for p in range(0, 91, 2)]
        axes.plot(rates, [1 / (1 - p) for p in rates], "k--", linewidth=1, label="ideal, 1/(1-p)")
        for phase in dict.fromkeys(row.phase for row in of_case):
            points = [row for row in of_case if row.phase == phase]
            x = [row.p for row in points]
            look = {"color": COLOURS[phase], "marker": "o", "markersize": 3}
            axes.plot(x, [r.speedup_vs_torch for r in points], **look,
                      label=f"{phase} against torch")  # fmt: skip
            axes.plot(x, [r.speedup_vs_dense for r in points], **look, linestyle=":",
                      label=f"{phase} against ours at p 0")  # fmt: skip
        axes.set(title=case, xlabel="drop rate p", yscale="log")
        _plain_ticks(axes, of_case)
        axes.legend(fontsize=6)
        axes.set_ylabel("speed-up")
    return figure


def _plain_ticks(axes: Any, rows: Sequence[Row]) -> None:
    """1, 2, 5, 10, ... in place of powers of ten."""
    top = max([10.0] + [row.speedup_vs_torch for row in rows])
    ticks = [t for t in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if t <= top * 1.1]
    axes.set_yticks(ticks, [f"{t:g}x" for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _growth(rows: Sequence[Row], ceilings: Ceilings) -> Figure:
    """Draw the gain against the width, and a roofline."""
    figure, (gain, own, roof) = _figure(3, 4.6)
    widths = sorted({int(row.case) for row in rows})
    for p, shade in zip(growth.RATES, (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)):
        for axes, name in ((gain, "speedup_vs_torch"), (own, "speedup_vs_dense")):
            # All phases of a step together: the sum of their times.
            def speedup(H: int, p: float = p, name: str = name) -> float:
                of = [row for row in rows if row.case == str(H) and row.p == p]
                whole = sum(row.torch_ms if name == "speedup_vs_torch" else row.dense_ms
                            for row in of)  # fmt: skip
                return whole / sum(row.ours_ms for row in of)

            axes.plot(widths, [speedup(H) for H in widths], marker="o", markersize=3,
                      color=(0.1, 0.2, 0.5, shade), label=f"p {p:g}")  # fmt: skip
            axes.axhline(1 / (1 - p), color=(0.1, 0.2, 0.5, shade), linestyle="--", linewidth=0.6)
    for axes, title in ((gain, "against torch, all phases"), (own, "against ours at p 0")):
        axes.set(title=title, xlabel="width H", xscale="log", yscale="log")
        axes.set_xticks(widths, [str(H) for H in widths])
        _plain_ticks(axes, rows)
        axes.set_ylim(bottom=min(0.9, axes.get_ylim()[0]))
    gain.set_ylabel("speed-up (dashed: 1/(1-p))")
    lines, names = gain.get_legend_handles_labels()
    own.legend(lines[::-1], names[::-1], fontsize=7, loc="upper right")  # there it covers no line

    for phase, colour in COLOURS.items():
        of = [row for row in rows if row.phase == phase]
        x = [row.gflops * row.ours_ms * 1e6 / growth.bytes_moved(row) for row in of if row.gflops]
        y = [row.gflops for row in of if row.gflops]
        sizes = [4 + 20 * (1 - row.p) for row in of if row.gflops]
        roof.scatter(x, y, s=sizes, color=colour, label=phase, alpha=0.7)
    intensity = [2 ** (e / 4) for e in range(41)]
    limit = [min(ceilings.gflops, ceilings.gbs * i) for i in intensity]
    roof.plot(intensity, limit, "k-", linewidth=1)
    roof.axhline(0.8 * ceilings.gflops, color="k", linestyle=":", linewidth=0.8)
    roof.set(title="roofline (small: high p; dotted: 0.8 of peak)", xscale="log",
             yscale="log", xlabel="kept FLOPs a byte that must move",
             ylabel="kept GFLOP/s")  # fmt: skip
    roof.legend(fontsize=7)
    roof.grid(alpha=0.3)
    return figure


def _steps(rows: Sequence[Row], _: Ceilings) -> Figure:
    """Bars: both speed-ups of each case."""
    figure, all_axes = _figure(1, 1.2 + 0.45 * len(rows))
    figure.set_figwidth(8)
    _bars(all_axes[0], rows)
    return figure


def _phases(rows: Sequence[Row], _: Ceilings) -> Figure:
    """Bars of the whole updates, and where the time of an update goes."""
    steps = [row for row in rows if row.phase == "step"]
    figure, (speedups, times) = _figure(2, 1.2 + 0.45 * len(steps))
    figure.set_figwidth(14)
    _bars(speedups, steps)
    phases = list(dict.fromkeys(row.phase for row in rows if row.phase != "step"))
    for line, step in enumerate(steps):
        of = {row.phase: row for row in rows if row.case == step.case}
        for offset, side in ((-0.2, "torch_ms"), (0.2, "ours_ms")):
            left = 0.0
            for i, phase in enumerate(phases):
                width = getattr(of[phase], side)
                times.barh(line + offset, width, 0.38, left, color=f"C{i}",
                           label=phase if line == 0 and side == "torch_ms" else None)  # fmt: skip
                left += width
    times.set_yticks(range(len(steps)), [])  # the other panel names them
    times.set_ylim(speedups.get_ylim())
    times.set_xlabel("ms of an update (upper bar: stock, lower bar: ours)")
    times.legend(fontsize=8, ncols=len(phases), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    names = [f"{row.case}, {row.phase}, p {row.p:g}" for row in rows]
    places = range(len(rows))
    axes.barh([i - 0.2 for i in places], [r.speedup_vs_torch for r in rows], 0.38,
              color="tab:blue", label="against torch")  # fmt: skip
    axes.barh([i + 0.2 for i in places], [r.speedup_vs_dense for r in rows], 0.38,
              color="tab:gray", label="against ours at p 0")  # fmt: skip
    for i, row in enumerate(rows):
        axes.plot([row.ideal] * 2, [i - 0.42, i + 0.42], "k--", linewidth=1,
                  label="ideal" if i == 0 else None)  # fmt: skip
        axes.text(row.speedup_vs_torch, i - 0.2, f" {row.speedup_vs_torch:.2f}x", va="center",
                  fontsize=8)  # fmt: skip
    axes.axvline(1, color="k", linewidth=0.6)
    axes.margins(x=0.1)  # room for the figure behind the longest bar
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlabel("speed-up")
    axes.legend(fontsize=8)
