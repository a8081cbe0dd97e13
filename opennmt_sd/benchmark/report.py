"""Rows for people (a table) and for programs (JSON)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from opennmt_sd.benchmark import machine
from opennmt_sd.benchmark.row import Row

_console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at most: 1e9 FLOPs a second; 1e9 bytes read a second, from memory."""

    gflops: float
    gbs: float


def show_machine() -> Ceilings:
    """Print what is measured on."""
    for name, value in machine.describe().items():
        _console.print(f"{name:<12} {value}")
    ceilings = Ceilings(machine.peak_gflops(), machine.bandwidth_gbs())
    _console.print(f"{'ceilings':<12} {ceilings.gflops:.0f} GFLOP/s in registers (float32), "
                   f"{ceilings.gbs:.0f} GB/s from memory")  # fmt: skip
    return ceilings


def progress(rows: Iterable[Row], what: str) -> Iterator[Row]:
    """Pass the same rows on, with a word on where it is where people look."""
    with _console.status(f"{what} ..."):
        for row in rows:
            if _console.is_terminal:
                _console.print(f"  {row.case} {row.phase} p {row.p:g}: {row.speedup_vs_torch:.2f}x")
            yield row


UNITS = {
    "lm": "words",
    "tagger": "sentences",
    "onmt": "target tokens",
    "eole": "target tokens",
}  # of units/s


def show_table(rows: list[Row], ceilings: Ceilings) -> None:
    """Print one line a row: times, both speed-ups, and how much of the ideal was reached."""
    if not rows:
        return
    suite, units = rows[0].suite, any(row.units_per_s for row in rows)
    title = f"suite={suite}: ms, medians" + (f"; units: {UNITS[suite]}" if units else "")
    table = Table(title=title, title_justify="left", box=None)
    for name in ("case", "phase"):
        table.add_column(name, no_wrap=True)
    columns = ("p", "torch", "ours p 0", "ours p", "x torch", "x ours p 0", "ideal", "of ideal")
    products = any(row.gflops for row in rows)
    memory = any(row.peak_mb for row in rows)
    further = (
        *(("of peak",) if products else ()),
        *(("units/s", "torch's") if units else ()),
        *(("MB", "torch's MB") if memory else ()),
        "draw", "error",
    )  # fmt: skip
    for name in columns + further:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row.case, row.phase, f"{row.p:g}", *map(_ms, (row.torch_ms, row.dense_ms)),
                 _ms(row.ours_ms), f"[bold]{row.speedup_vs_torch:.2f}[/]",
                 f"{row.speedup_vs_dense:.2f}", f"{row.ideal:.2f}",
                 f"{row.share_of_ideal:.0%}"]  # fmt: skip
        if products:
            cells.append(f"{row.gflops / ceilings.gflops:.0%}" if row.gflops else "")
        if units:
            cells += [f"{n:,.0f}" if n else "" for n in (row.units_per_s, row.torch_units_per_s)]
        if memory:
            cells += [f"{n:.0f}" if n else "" for n in (row.peak_mb, row.torch_peak_mb)]
        draw = f"{row.draw_ms / row.ours_ms:.1%}" if row.draw_ms is not None else ""
        table.add_row(*cells, draw, f"{row.max_rel_err:.0e}")
    _console.print(table)


def show_columns(title: str, lines: list[dict[str, str]]) -> None:
    """Print lines of cells by the names of their columns: what is counted, and not timed."""
    table = Table(title=title, title_justify="left", box=None)
    for name in lines[0] if lines else ():
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line.values())
    _console.print(table)


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def show_red(text: str) -> None:
    """Print why there is no speed."""
    Console(stderr=True, highlight=False).print(f"[red]RED GATE[/]: {text}", soft_wrap=True)


def write_json(rows: Sequence[Any], path: str) -> None:
    """Write a list of rows."""
    Path(path).write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
