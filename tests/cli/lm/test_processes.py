"""``opennmt_sd_train_lm`` as a process: started, stopped by a signal, several at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(warm_python: list[str]) -> Callable[..., list[str]]:
    """The words of a command line, of a process of its own."""
    return lambda *overrides: [*warm_python, str(ROOT / "scripts" / "train_lm.py"), *overrides]


def shell(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def until(process: subprocess.Popen[str], path: Path, lines: int = 0) -> None:
    """Wait until a process has written a file (of so many lines)."""
    deadline = time.monotonic() + 100
    while not path.exists() or (lines and len(path.read_text().splitlines()) < lines):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def differing(a: Path, b: Path) -> list[str]:
    """Weights and, of every rank, generators and hidden states that differ in two checkpoints."""
    first, second = (torch.load(path, weights_only=True) for path in (a, b))
    found = [k for k, w in first["model"].items() if not torch.equal(w, second["model"][k])]
    assert len(first["ranks"]) == len(second["ranks"])
    for rank, (x, y) in enumerate(zip(first["ranks"], second["ranks"])):
        pairs = [(x["rng"]["torch"], y["rng"]["torch"])]
        for states in zip(x["carried"]["hidden"], y["carried"]["hidden"]):
            pairs += zip(*states)
        found += [f"rank {rank}" for p, q in pairs if not torch.equal(p, q)]
    return found + ([] if first["position"] == second["position"] else ["position"])


@pytest.mark.slow
def test_sigterm_in_a_shell_and_resume_equal_never_stopped(
    command, lm, small, text, run, tmp_path: Path
) -> None:
    options = (*small, "trainer.epochs=400", "trainer.threads=1", "trainer.log_every=10")
    process = subprocess.Popen(
        command(*options), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(process, run / "metrics.csv", lines=6)
    process.terminate()
    _, err = process.communicate(timeout=60)
    updates = torch.load(run / "last.pt", weights_only=True)["position"]["updates"]
    assert process.returncode == 143
    assert err == (
        f"train_lm: stopped by SIGTERM at update {updates:,}; {run}/last.pt is written. Go on from "
        "there with resume=auto and the same name\n"
    )
    end = f"trainer.max_updates={updates + 15}"
    threads = torch.get_num_threads()
    assert lm(*options, end, "resume=auto").code == 0
    assert lm(*options, end, "name=whole").code == 0
    torch.set_num_threads(threads)
    assert differing(run / "last.pt", tmp_path / "runs/lm/whole/last.pt") == []


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_exactly(
    command, small, text, run, warm_python, tmp_path: Path
) -> None:
    # Started by Fabric, stopped by SIGTERM; then from an early checkpoint up to the same update,
    # started by torchrun.
    options = (*small, "trainer.epochs=400", "trainer.threads=1", "trainer.evaluate_every=4")
    process = subprocess.Popen(
        command(*options, "trainer.devices=2"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until(process, run / "best.pt")
    shutil.copy(run / "best.pt", tmp_path / "early.pt")
    until(process, run / "metrics.csv", lines=20)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out.count("parameters; engine") == 1  # one of two speaks
    early, last = (
        torch.load(path, weights_only=True) for path in (tmp_path / "early.pt", run / "last.pt")
    )
    assert early["position"]["updates"] < last["position"]["updates"]
    generators = [rank["rng"]["torch"] for rank in last["ranks"]]
    assert not torch.equal(*generators)  # ranks drop different units
    done = shell(
        tmp_path, *warm_python, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        command()[-1], *options, "name=again", f"resume={tmp_path}/early.pt",
        f"trainer.max_updates={last['position']['updates']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = tmp_path / "runs" / "lm" / "again"
    assert differing(run / "last.pt", again / "last.pt") == []
    assert {path.name for path in again.iterdir()} == {
        ".hydra", "best.pt", "last.pt", "curves.png", "metrics.csv", "result.json", "train_lm.log",
    }  # fmt: skip


@pytest.mark.slow
def test_the_installed_command_works_from_a_foreign_folder(
    text, small, run, warm_python, tmp_path: Path
) -> None:
    installed = str(Path(sys.executable).with_name("opennmt_sd_train_lm"))
    done = shell(tmp_path, *warm_python, installed, *small, "trainer.max_updates=2")
    assert done.returncode == 0, done.stderr
    assert (run / "best.pt").exists()
    shown = shell(tmp_path, *warm_python, installed, "--help")
    assert "experiment: awd_lstm, awd_lstm_rh, gal_large" in shown.stdout
