"""The Hydra project: its commands, on a text of a few words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
TINY = (
    "data.path=text", "data.batch_size=2", "data.eval_batch_size=2", "trainer.max_updates=2",
    "trainer.accelerator=cpu", "sample.words=0",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "hydra_project"
    shutil.copytree(ROOT / "examples" / "hydra_project", folder)
    (folder / "text").mkdir()
    for name in ("train", "valid", "test"):
        (folder / "text" / f"{name}.txt").write_text("to be or not to be\n" * 30)
    return folder


@pytest.fixture
def command(warm_python: list[str], project: Path) -> Callable[..., str]:
    """Run a script of the project's: what it prints."""

    def command(*words: str) -> str:
        done = subprocess.run(
            [*warm_python, *words], cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


def test_a_model_alone(command) -> None:
    # Embedding 10,000 x 400, tied, and its output's bias; an LSTM of 400, 1150, 1150, 400.
    lstm = sum(4 * n * (m + n + 2) for m, n in ((400, 1150), (1150, 1150), (1150, 400)))
    assert command("count.py") == f"{10_000 * 400 + 10_000 + lstm:,} parameters\n"
    assert command("count.py", "model=zaremba_small", "words=10") == (
        f"{10 * 200 + 200 * 10 + 10 + 2 * 4 * 200 * 402:,} parameters\n"
    )


def test_a_whole_training(command, project: Path) -> None:
    out = command("train.py", *TINY, "model.hidden=8", "model.embedding=8", "name=a")
    assert out.startswith("my study: a\n")
    assert json.loads((project / "results" / "a" / "result.json").read_text())["update"] == 2
    assert "project: my study" in (project / "results/a/.hydra/config.yaml").read_text()


def test_an_experiment_of_its_own_on_top_of_ours(command) -> None:
    shown = command("train.py", "experiment=wide", "data.path=text", "--cfg", "job")
    for line in ("  hidden: 300", "  epochs: 13", "    name: step_down", "  log_every: 20"):
        assert f"\n{line}\n" in shown, line
