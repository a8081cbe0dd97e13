"""Rows for people (a table) and for programs (JSON)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

from opennmt_sd import atomic
from opennmt_sd.benchmark import machine
from opennmt_sd.benchmark.machine import Ceilings
from opennmt_sd.benchmark.row import Row
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.ops.calibration import in_force

LINE_SECONDS = 15

_console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)


def show_machine(target: Target = CPU) -> Ceilings:
    """Print what is measured on."""
    for name, value in machine.describe(target).items():
        _console.print(f"{name:<12} {value}", soft_wrap=True)
    ceilings = Ceilings.of(target)
    _console.print(f"{'ceilings':<12} {ceilings}")
    return ceilings


def progress(rows: Iterable[Row], what: str, total: int | None = None) -> Iterator[Row]:
    """Pass the same rows on; say how many cases have been begun, with a bar and each row where
    people look, and elsewhere with a line now and then.

    Args:
        total: cases that there will be; None: nobody knows.
    """
    live, begun, said = sys.stderr.isatty(), 0, time.monotonic()
    case = None
    with tqdm(total=total, desc=what, unit=" cases", disable=not live, dynamic_ncols=True) as bar:
        for row in rows:
            if row.case != case:
                case, begun = row.case, begun + 1
                bar.update()
            if live:
                bar.clear()
                _console.print(f"  {row.case} {row.phase} p {row.p:g}: {row.speedup_vs_torch:.2f}x")
                bar.refresh()
            elif time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                of = f" of {total}" if total else ""
                print(f"{what}: {begun}{of} cases", file=sys.stderr, flush=True)
            yield row


def waiting(what: str) -> AbstractContextManager[Any]:
    """Show a word on what is counted where people look."""
    return _console.status(f"{what} ...")


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
    draws = any(row.draw_ms is not None for row in rows)
    memory, loops = any(row.peak_mb for row in rows), any(row.loop_ms for row in rows)
    lowered = any(row.torch_bf16_ms for row in rows)
    further = (
        *(("torch bf16", "x bf16") if lowered else ()),
        *(("loop", "x loop") if loops else ()),
        *(("of peak",) if products else ()),
        *(("units/s", "torch's") if units else ()),
        *(("MB", "torch's MB") if memory else ()),
        *(("draw",) if draws else ()), "error",
    )  # fmt: skip
    for name in columns + further:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row.case, row.phase, f"{row.p:g}", *map(_ms, (row.torch_ms, row.dense_ms)),
                 _ms(row.ours_ms), f"[bold]{row.speedup_vs_torch:.2f}[/]",
                 f"{row.speedup_vs_dense:.2f}", f"{row.ideal:.2f}",
                 f"{row.share_of_ideal:.0%}"]  # fmt: skip
        for shown, ms, speedup in (
            (lowered, row.torch_bf16_ms, row.speedup_vs_torch_bf16),
            (loops, row.loop_ms, row.speedup_vs_loop),
        ):
            if shown:
                cells += [_ms(ms), f"{speedup:.2f}"] if ms else ["", ""]
        if products:
            cells.append(f"{row.gflops / ceilings.gflops:.0%}" if row.gflops else "")
        if units:
            cells += [f"{n:,.0f}" if n else "" for n in (row.units_per_s, row.torch_units_per_s)]
        if memory:
            cells += [f"{n:.0f}" if n else "" for n in (row.peak_mb, row.torch_peak_mb)]
        if draws:
            cells.append("" if row.draw_ms is None else f"{row.draw_ms / row.ours_ms:.1%}")
        table.add_row(*cells, f"{row.max_rel_err:.0e}")
    _console.print(table)


def show_worst(title: str, rows: Sequence[Row]) -> None:
    """Print one line a row: times, and both speed-ups."""
    show_columns(
        f"{title}, ms, medians",
        [
            {"case": row.case, "phase": row.phase, "p": f"{row.p:g}", "torch": _ms(row.torch_ms),
             "dense": _ms(row.dense_ms), "ours": _ms(row.ours_ms),
             "x torch": f"{row.speedup_vs_torch:.2f}", "x dense": f"{row.speedup_vs_dense:.2f}",
             "error": f"{row.max_rel_err:.0e}"}
            for row in rows
        ],
    )  # fmt: skip


def show_words(sentences: Iterable[str]) -> None:
    """Print a sentence a line."""
    for sentence in sentences:
        _console.print(sentence, soft_wrap=True)


def show_columns(title: str, lines: list[dict[str, str]]) -> None:
    """Print lines of cells by the names of their columns: what is counted, and not timed."""
    table = Table(title=title, title_justify="left", box=None)
    for name in lines[0] if lines else ():
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line.values())
    _console.print(table)


def _ms(value: float) -> str:
    digits = 3 if value < 1 else 2 if value < 100 else 0
    return f"{value:.{digits}f}"


def show_end(word: str, text: str) -> None:
    """Print why there is no speed, or no more."""
    Console(stderr=True, highlight=False).print(f"[red]{word}[/]: {text}", soft_wrap=True)


def show_left_out(text: str) -> None:
    """Print why a suite is left out."""
    _console.print(f"left out: {text}", soft_wrap=True)


def show_choices() -> None:
    """Print what was found to be faster on a card, where there are two ways."""
    for what, ours in in_force().items():
        _console.print(f"taken: {'ours' if ours else 'dense'}, {what}", soft_wrap=True)


def write_json(
    rows: Sequence[Any], path: str, facts: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write a list of rows, each with the facts about what it was measured on."""
    written = [{**row.as_json(), **(facts or {})} for row in rows]
    atomic.write_text(Path(path), json.dumps(written, indent=1) + "\n")
