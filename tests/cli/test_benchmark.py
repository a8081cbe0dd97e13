"""``scripts/benchmark.py``: its table, its files, its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from opennmt_sd.ops.cpu import native

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "benchmark.py")
SUITES = "ops, lstm, gru, lm, tagger, onmt, eole, growth, systolic, launches"
RunPython = Callable[..., "CompletedProcess[str]"]


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_a_suite_prints_a_table_and_writes_its_files(run_warm: RunPython, tmp_path: Path) -> None:
    done = run_warm(
        SCRIPT, "suite=growth", "cases=[256]", "repeats=1", "threads=1", "json=rows.json",
        "plot=rows.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("processor", "ceilings", "GFLOP/s", "REC-WG", "of ideal"):
        assert word in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["case"] for row in rows} == {"256"}
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.json", "rows.png"]


def test_all_faults_are_told_at_once(run_warm: RunPython) -> None:
    done = run_warm(SCRIPT, "suite=osp", "repeats=0", "json=rows.txt", "plot=no/such/x.png")
    assert done.returncode == 2
    assert done.stdout == ""
    text = done.stderr.splitlines()
    assert text[0] == "benchmark: the configuration has 4 faults:"
    assert text[1].strip() == f"suite=osp: use one of {SUITES}"
    assert text[2].strip() == "repeats=0: must be 1 or more"
    assert text[3].strip() == "json=rows.txt: the file's name must end in .json"
    assert text[4].strip().startswith("plot=no/such/x.png: there is no folder ")


def test_a_suite_is_asked_for(run_warm: RunPython) -> None:
    done = run_warm(SCRIPT)
    assert done.returncode == 2
    assert done.stderr == (
        "benchmark: the configuration has one fault:\n  suite is missing: write suite=lstm, say "
        f"(one of {SUITES})\n"
    )


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_an_unknown_case_names_the_known_ones(run_warm: RunPython) -> None:
    done = run_warm(SCRIPT, "suite=lstm", "cases=[nothing]")
    assert done.returncode == 2
    assert "no case of suite=lstm is named so: 650 NR+RH, 1500 NR+RH" in done.stderr


RED = """
import sys
from opennmt_sd.benchmark import growth
from opennmt_sd.benchmark.row import RedGateError
def run(repeats, cases):
    raise RedGateError("256 FP: results are wrong, so no speed is reported")
    yield
growth.run = run
sys.argv = ["benchmark.py", "suite=growth", "json=rows.json"]
from opennmt_sd.cli.benchmark import main
main()
"""


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_a_red_gate_prints_no_speed(run_warm: RunPython, tmp_path: Path) -> None:
    done = run_warm("-c", RED)
    assert done.returncode == 1
    assert done.stderr.strip() == "RED GATE: 256 FP: results are wrong, so no speed is reported"
    assert not (tmp_path / "rows.json").exists()


def test_a_suite_that_is_counted(run_warm: RunPython, tmp_path: Path) -> None:
    """It needs no kernels and no clock."""
    done = run_warm(SCRIPT, "suite=systolic", "cases=[tagger]", "json=rows.json", "plot=rows.png")
    assert done.returncode == 0, done.stderr
    assert "suite=systolic: cycles" in done.stdout
    assert "ceilings" not in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["case"] for row in rows} == {"tagger 130 to 200"}
    assert len(rows) == 3 * 3 * 6  # arrays, dataflows, phases
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")


def test_launches_have_no_picture(run_warm: RunPython) -> None:
    done = run_warm(SCRIPT, "suite=launches", "plot=x.png")
    assert done.returncode == 2
    assert done.stderr == (
        "benchmark: the configuration has one fault:\n  plot=x.png: suite=launches has no picture; "
        "use json=\n"
    )
