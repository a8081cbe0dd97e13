"""Sweeps: one folder, a table, the best run; a study that goes on; an end by Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

ROOT = Path(__file__).parents[3]
SIZES = (
    "data.path=text", "data.batch_size=2", "data.unroll=5", "model.embedding=8", "model.hidden=8",
    "trainer.accelerator=cpu", "name=run",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "lm" / "multirun" / "run"


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_over_experiments_is_one_folder_with_a_table(lm, tiny, tmp_path) -> None:
    done = lm("-m", *tiny[:-1], "experiment=zaremba_small,gal_medium", "model.dropout.nr.p=0.1,0.3")
    assert done.code == 0, done.err
    (folder,) = {path.parents[1] for path in tmp_path.glob("runs/**/result.json")}
    assert folder.is_relative_to(tmp_path / "runs/lm/multirun")
    table = rows(folder)
    assert [row["run"] for row in table] == ["0", "1", "2", "3"]
    assert [(row["experiment"], row["model.dropout.nr.p"]) for row in table] == [
        ("zaremba_small", "0.1"), ("zaremba_small", "0.3"),
        ("gal_medium", "0.1"), ("gal_medium", "0.3"),
    ]  # fmt: skip
    scores = {
        run: json.loads((folder / run / "result.json").read_text())["valid/perplexity"]
        for run in "0123"
    }
    assert [float(row["valid/perplexity"]) for row in table] == list(scores.values())
    best = min(scores, key=scores.__getitem__)
    said = f"Best of 4 runs, 0 of them without a score: valid/perplexity {scores[best]:.5g}: "
    assert f"{said}experiment=" in done.out
    place = folder.relative_to(tmp_path)
    assert f"{place / best}. The table: {place / 'summary.csv'}" in done.out


@pytest.mark.slow
def test_a_run_that_fails_stands_in_the_table_without_a_score(lm, tiny, folder) -> None:
    done = lm("-m", *tiny, "model.dropout.fc.p=0.1,1.0,0.3")
    assert done.code == 1
    assert "model.dropout.fc.p=1.0: must lie in [0, 1)" in done.err
    assert "Traceback" not in done.err
    assert done.err.endswith("train_lm: a run of the sweep has failed; what it said stands above\n")
    assert [(row["model.dropout.fc.p"], row["valid/perplexity"] != "") for row in rows(folder)] == [
        ("0.1", True), ("1.0", False), ("0.3", True),
    ]  # fmt: skip
    assert "Best of 3 runs, 1 of them without a score: valid/perplexity " in done.out


def trials(folder: Path) -> list[list[str]]:
    """What was tried, in order."""
    return [
        [line for line in path.read_text().splitlines() if "dropout" in line or "optim.lr" in line]
        for path in sorted(folder.glob("*/.hydra/overrides.yaml"))
    ]


@pytest.mark.slow
def test_a_study_that_is_kept_goes_on(lm, tiny, tmp_path, folder) -> None:
    optuna = pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    search = (*tiny, "hparams_search=optuna", "hydra.sweeper.storage=sqlite:///search.db")
    for _ in range(2):
        done = lm(*search, "hydra.sweeper.n_trials=2")
        assert done.code == 0, done.err
    parts = trials(folder)
    assert len({tuple(trial) for trial in parts}) == 4
    (name,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path}/search.db")
    assert name.n_trials == 4
    assert name.direction == optuna.study.StudyDirection.MINIMIZE
    # As one search that was never stopped.
    assert lm(*search[:-1], "hydra.sweeper.n_trials=4", "name=whole").code == 0
    assert trials(folder.with_name("whole")) == parts
    best = min(float(row["valid/perplexity"]) for row in rows(folder))
    results = (folder / "optimization_results.yaml").read_text()
    assert float(re.search(r"best_value: (.*)", results)[1]) == pytest.approx(best)


@pytest.mark.slow
def test_joblib_runs_two_at_a_time(text, folder, tmp_path, warm_python) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="no joblib launcher here")
    done = subprocess.run(
        [
            *warm_python, str(ROOT / "scripts" / "train_lm.py"), "hparams_search=joblib",
            *SIZES, "trainer.max_updates=2", "model.dropout.nr.p=0.1,0.2", "model.dropout.rh.p=0.1",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*/result.json"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("to", ["group", "parent"])
def test_ctrl_c_in_joblib_lets_every_run_write_its_checkpoint(
    text, folder, tmp_path, warm_python, to
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="no joblib launcher here")
    process = subprocess.Popen(
        [
            *warm_python, str(ROOT / "scripts" / "train_lm.py"), "hparams_search=joblib",
            *SIZES, "trainer.epochs=4000",
            "model.dropout.nr.p=0.1,0.2,0.3,0.4", "model.dropout.rh.p=0",
        ],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(list(folder.glob("[01]/last.pt"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (os.killpg if to == "group" else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    said = re.findall(r"stopped by SIG\w+ at update ([\d,]+); .*?/(\d)/last.pt is written", err)
    assert {run for _, run in said} == {"0", "1"}
    for updates, run in said:
        state = torch.load(folder / run / "last.pt", weights_only=True)
        assert state["position"]["updates"] == int(updates.replace(",", ""))
    assert not list(folder.glob("[23]/last.pt"))
    assert re.search(r"^\[[\d:]+\] #[01] Epoch ", out, re.MULTILINE)  # whose line it is
