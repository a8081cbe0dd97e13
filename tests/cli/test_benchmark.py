"""``scripts/benchmark.py``: its table, its files, its refusals."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from opennmt_sd.benchmark import machine, report
from opennmt_sd.benchmark.row import RedGateError, Row
from opennmt_sd.benchmark.target import Target
from opennmt_sd.cli import benchmark
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.ops.cpu import native

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "benchmark.py")
SUITES = "ops, lstm, gru, lm, tagger, onmt, eole, all, growth, sweep, systolic, launches, noise"
RunPython = Callable[..., "CompletedProcess[str]"]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_a_red_gate_prints_no_speed(run_warm: RunPython, tmp_path: Path) -> None:
    done = run_warm("-c", RED)
    assert done.returncode == 1
    assert done.stderr.strip() == "RED GATE: 256 FP: results are wrong, so no speed is reported"
    assert not (tmp_path / "rows.json").exists()


SWEPT = """
import sys
from opennmt_sd.benchmark import sweep
def alternate(variants, repeats, clock, budget_ms):
    slow = "evaluate" in str(variants["torch"])
    return {"torch": 0.6 if slow else 3.0, "dense": 2.0, "ours": 1.0}
sweep.alternate = alternate
sys.argv = ["benchmark.py", "suite=sweep", "shapes=6", "seed=5", "cases=[linear]", "json=rows.json"]
from opennmt_sd.cli.benchmark import main
main()
"""


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_a_sweep_ends_with_an_error_where_ours_is_slower(
    run_warm: RunPython, tmp_path: Path
) -> None:
    """All the same the rows are shown, and written."""
    done = run_warm("-c", SWEPT)
    assert done.returncode == 1
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["suite"] for row in rows} == {"sweep"}
    assert done.stderr.startswith(
        f"SLOWER: {len(rows) // 2} of {len(rows)} under 0.95 of torch's speed, the worst 0.60x ("
    )
    assert f"suite=sweep seed=5: the worst of {len(rows)}, ms, medians" in done.stdout
    assert "3.00x against torch, 2.00x against leaving nothing out" in done.stdout


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_an_unknown_shape_names_some() -> None:
    with pytest.raises(ConfigError, match=r"named so: 0 .*, 29 [^,]*, [.]{3}$"):
        benchmark.run(benchmark.BenchmarkConfig(suite="sweep", cases=["nothing"]))


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


@pytest.mark.slow
def test_launches_have_no_picture(run_warm: RunPython) -> None:
    done = run_warm(SCRIPT, "suite=launches", "plot=x.png")
    assert done.returncode == 2
    assert done.stderr == (
        "benchmark: the configuration has one fault:\n  plot=x.png: suite=launches has no picture; "
        "use json=\n"
    )


ON_GPU = "ops, lstm, gru, lm, tagger, onmt, eole"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"device": "gpu"}, "device=gpu: use cpu or cuda (of several GPUs the environment's "
         "CUDA_VISIBLE_DEVICES chooses one)"),
        ({"device": "cuda:1"}, "device=cuda:1: use cpu or cuda (of several GPUs the environment's "
         "CUDA_VISIBLE_DEVICES chooses one)"),
        ({"dtype": "half"}, "dtype=half: use one of float32, tf32, float16, bfloat16"),
        ({"dtype": "bfloat16"}, "dtype=bfloat16: on the CPU float32 is measured; leave dtype= out, "
         "or add device=cuda"),
        ({"device": "cuda", "suite": "growth"}, "device=cuda: suite=growth measures the CPU's "
         f"kernels: leave device= out, or use one of {ON_GPU}"),
        ({"device": "cuda", "suite": "launches"}, "device=cuda: suite=launches is counted, and "
         "asks no device: leave device= out"),
        ({"device": "cuda", "suite": "onmt", "dtype": "float16"}, "dtype=float16: suite=onmt is "
         "measured in float32 and tf32"),
        ({"device": "cuda"}, "device=cuda: torch sees no CUDA device here; see nvidia-smi and "
         f"torch.version.cuda ({torch.version.cuda}), or leave device= out, which measures the "
         "CPU"),
        ({"device": "cuda", "suite": "sweep"}, "device=cuda: suite=sweep measures the CPU's "
         f"kernels: leave device= out, or use one of {ON_GPU}"),
        ({"seed": 3}, "seed=3: suite=lm draws no shapes, only suite=sweep does: leave seed= out"),
        ({"shapes": 3}, "shapes=3: suite=lm draws no shapes, only suite=sweep does: leave shapes= "
         "out"),
        ({"suite": "sweep", "shapes": 0}, "shapes=0: must be 1 or more"),
        ({"suite": "sweep", "seed": -1}, "seed=-1: must be 0 or more"),
        ({"suite": "sweep", "plot": "x.png"}, "plot=x.png: suite=sweep has no picture; use json="),
        ({"suite": "noise", "repeats": 15}, "repeats=15: suite=noise is counted, once and for all: "
         "leave repeats= out"),
        ({"suite": "all", "cases": ["650"]}, "cases=['650']: suite=all takes none; name one suite"),
    ],
    ids=lambda given: " ".join(map(str, given.values())) if isinstance(given, dict) else "",
)  # fmt: skip
def test_what_a_device_cannot(given: dict[str, Any], fault: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        benchmark.run(benchmark.BenchmarkConfig(**{"suite": "lm", **given}))
    assert caught.value.faults == [fault]


def test_all_suites_one_after_the_other(monkeypatch, tmp_path: Path, capsys) -> None:
    """One that ends early does not keep others from being measured, nor what it had."""
    row = {"p": 0.5, "phase": "step", "torch_ms": 2.0, "dense_ms": 2.0, "ours_ms": 1.0,
           "ideal": 2.0, "max_rel_err": 0.0}  # fmt: skip

    class Suite:
        CASES = (SimpleNamespace(name="case"), SimpleNamespace(name="large"))

        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, repeats: int, cases: Any) -> Iterator[Row]:
            assert (repeats, cases) == (2, [*self.CASES])
            yield Row(suite=self.name, case="case", **row)
            if self.name == "lstm":
                raise RedGateError("lstm is wrong")
            if self.name == "gru":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def suite(name: str, target: Target) -> Suite:
        if name == "eole":
            raise ConfigError(["suite=eole: 'eole' is not installed"])
        return Suite(name)

    monkeypatch.setattr(benchmark, "_suite", suite)
    monkeypatch.setattr(report, "show_machine", lambda target: machine.Ceilings(1.0, 1.0))
    file = tmp_path / "rows.json"
    with pytest.raises(SystemExit, match="1"):
        benchmark.time_all(
            benchmark.BenchmarkConfig(suite="all", repeats=2, json=str(file)), Target()
        )
    rows = json.loads(file.read_text())
    assert [row["suite"] for row in rows] == ["ops", "lstm", "gru", "lm", "tagger", "onmt"]
    assert rows[0]["machine"]["torch"].startswith(torch.__version__)
    out, err = capsys.readouterr()
    assert "left out: suite=eole: 'eole' is not installed" in out
    assert err == (
        "RED GATE: lstm is wrong\nOUT OF MEMORY: suite=gru: not measured: large; choose smaller "
        "ones with cases=[...]\n"
    )


ROW = {"phase": "step", "p": 0.5, "torch_ms": 3.0, "dense_ms": 2.0, "ours_ms": 1.0, "ideal": 2.0,
       "max_rel_err": 0.0}  # fmt: skip


@pytest.mark.skipif(native() is None, reason="the native module was not built")
@pytest.mark.parametrize("suite", ["lstm", "sweep"])
@pytest.mark.parametrize(
    ("error", "code", "end"),
    [
        (KeyboardInterrupt(), 130, "STOPPED: suite={suite}: not all of {cases} cases are measured; "
         "{file} has those that are\n"),
        (RedGateError("it is wrong"), 1, "RED GATE: it is wrong\n"),
    ],
    ids=["Ctrl-C", "red"],
)  # fmt: skip
def test_rows_are_kept_when_a_suite_ends_early(
    suite, error, code, end, monkeypatch, capsys, tmp_path: Path
) -> None:
    module = importlib.import_module(f"opennmt_sd.benchmark.{suite}")
    file = tmp_path / "rows.json"

    def run(repeats: int, cases: list[Any]) -> Iterator[Row]:
        assert repeats == 15
        yield Row(suite=suite, case=cases[0].name, **ROW)
        assert len(json.loads(file.read_text())) == 1  # even if it were killed now
        yield Row(suite=suite, case=cases[1].name, **ROW)
        raise error

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(report, "show_machine", lambda target: machine.Ceilings(1.0, 1.0))
    with pytest.raises(SystemExit) as ended:
        benchmark.run(benchmark.BenchmarkConfig(suite=suite, json=str(file)))
    assert ended.value.code == code
    rows = json.loads(file.read_text())
    assert [row["speedup_vs_torch"] for row in rows] == [3.0, 3.0]
    assert rows[0]["machine"]["torch"].startswith(torch.__version__)
    out, err = capsys.readouterr()
    cases = 300 if suite == "sweep" else len(module.CASES)
    assert err == end.format(suite=suite, cases=cases, file=file)
    assert rows[0]["case"] in out
