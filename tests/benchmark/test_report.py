"""What the tables of the benchmark show of a card."""

from __future__ import annotations

import pytest

from opennmt_sd.benchmark import machine, report
from opennmt_sd.benchmark.row import Row


def test_a_table_with_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"suite": "lstm", "p": 0.5, "phase": "step", "torch_ms": 2.0, "dense_ms": 2.0,
             "ours_ms": 0.5, "ideal": 2.0, "max_rel_err": 1e-7}  # fmt: skip
    rows = [Row(case="a", loop_ms=2.0, **given), Row(case="b", **given)]
    report.show_table(rows, machine.Ceilings(1.0, 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert "loop  x loop" in lines[1]
    assert "2.00    4.00" in lines[2]


def test_choices_of_a_card_are_told(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "in_force", lambda: {"a, 3 x 4": True, "b": False})
    report.show_choices()
    assert capsys.readouterr().out == "taken: ours, a, 3 x 4\ntaken: dense, b\n"
