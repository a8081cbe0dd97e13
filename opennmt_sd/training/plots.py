"""The curves of a training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opennmt_sd import atomic
from opennmt_sd.extras import extra
from opennmt_sd.training.loggers import read_csv


def plot_curves(metrics: Path, picture: Path, *, measure: str, score: str, mode: str) -> None:
    """Draw training and validation over the epochs, and the learning rate below.

    Args:
        metrics: a ``metrics.csv`` of the trainer.
        picture: the PNG to write.
        measure: the figure of training to draw: ``"loss"`` or ``"perplexity"``.
        score: the score that tells the best checkpoint.
        mode: ``"min"`` or ``"max"``: which way it is better; the best one is marked.
    """
    with extra("train"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot: no global state, no display

    rows = read_csv(metrics)

    def series(name: str) -> tuple[Sequence[float], Sequence[float]]:
        found = [(row["epoch"], row[name]) for row in rows if name in row and "epoch" in row]
        return [x for x, _ in found], [y for _, y in found]

    together = score == measure  # training and validation on one scale
    figure = Figure(figsize=(7, 6 if together else 8), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [3, 1] if together else [2, 2, 1]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    top, middle, bottom = axes[0], axes[-2], axes[-1]

    top.plot(*series(f"train/{measure}"), color="tab:blue", alpha=0.8, linewidth=1.2, label="train")
    if not together:
        top.plot(*series(f"valid/{measure}"), color="tab:orange", marker="o", markersize=3)
        top.set_ylabel(measure)
    epochs, scores = series(f"valid/{score}")
    middle.plot(epochs, scores, color="tab:orange", marker="o", markersize=3, label="valid")
    if scores:
        best = min(scores) if mode == "min" else max(scores)
        where = epochs[scores.index(best)]
        middle.plot([where], [best], "*", color="tab:red", markersize=12, label=f"best {best:.4g}")
    middle.set_ylabel(score)
    if measure == "perplexity":
        # The first figures are those of untrained weights; a log axis keeps the rest apart.
        top.set_yscale("log")
        top.yaxis.set_major_formatter("{x:,.0f}")
        top.yaxis.set_minor_formatter("{x:,.0f}")
    bottom.plot(*series("train/lr"), color="tab:gray", drawstyle="steps-post")
    bottom.set_ylabel("learning rate")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("epoch")
    for ax in axes:
        ax.grid(alpha=0.3)
    for ax in {top, middle}:
        ax.legend()
    with atomic.writer(picture) as file:
        figure.savefig(file, format="png", dpi=120)
