"""What the tables of the benchmark show of a card."""

from __future__ import annotations

import pytest

from opennmt_sd.benchmark import machine, report
from opennmt_sd.benchmark.row import Row


def test_a_table_with_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"suite": "lstm", "p": 0.5, "phase": "step", "torch_ms": 2.0, "dense_ms": 2.0,
             "ours_ms": 0.5, "ideal": 2.0, "max_rel_err": 1e-7}  # fmt: skip
    rows = [Row(case="a", loop_ms=2.0, torch_bf16_ms=1.25, **given), Row(case="b", **given)]
    report.show_table(rows, machine.Ceilings(1.0, 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert "loop  x loop" in lines[1]
    assert "2.00    4.00" in lines[2]
    assert "torch bf16  x bf16" in lines[1]
    assert "1.25    2.50" in lines[2]
    assert [row.as_json().get("speedup_vs_torch_bf16") for row in rows] == [2.5, None]


def test_choices_of_a_card_are_told(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "in_force", lambda: {"a, 3 x 4": True, "b": False})
    report.show_choices()
    assert capsys.readouterr().out == "taken: ours, a, 3 x 4\ntaken: dense, b\n"


def rows_of(*cases: str) -> list[Row]:
    return [
        Row(suite="sweep", case=case, phase=phase, p=0.5, torch_ms=3.0, dense_ms=2.0, ours_ms=1.0,
            ideal=2.0, max_rel_err=0.0)
        for case in cases for phase in ("step", "eval")
    ]  # fmt: skip


def test_elsewhere_than_in_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch) -> None:
    rows = rows_of("a", "b", "c")
    assert list(report.progress(rows, "suite=sweep", 4)) == rows
    assert capsys.readouterr() == ("", "")  # over within seconds
    monkeypatch.setattr(report, "LINE_SECONDS", -1)
    assert list(report.progress(rows, "suite=sweep", 4)) == rows
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"suite=sweep: {n} of 4 cases" for n in (1, 1, 2, 2, 3, 3)]
    assert list(report.progress(rows[:1], "further rates")) == rows[:1]
    assert capsys.readouterr().err == "further rates: 1 cases\n"


def test_in_a_terminal_progress_is_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setattr(report.sys.stderr, "isatty", lambda: True)
    rows = rows_of("a", "b")
    assert list(report.progress(rows, "suite=sweep", 2)) == rows
    out, err = capsys.readouterr()
    assert "a step p 0.5: 3.00x" in out
    assert "suite=sweep: 100%" in err
    assert "2/2" in err
