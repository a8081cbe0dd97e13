"""``opennmt_sd_train_lm``, from a command line to files and exit codes, on a tiny corpus."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd import ops
from opennmt_sd.ops.cpu import bfloat16
from opennmt_sd.training.loggers import read_csv

ROOT = Path(__file__).parents[3]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "lm" / "experiment").glob("*.yaml"))


@pytest.mark.usefixtures("drawn_curves")
def test_the_default_does_all_of_it(lm, small, run) -> None:
    done = lm(*small, "trainer.epochs=2")
    assert (done.code, done.err) == (0, "")
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".hydra", "best.pt", "last.pt", "curves.png", "metrics.csv", "result.json", "train_lm.log",
    }  # fmt: skip
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((run / "result.json").read_text())
    assert result.keys() == {"valid/perplexity", "update", "test/loss", "test/perplexity"}
    rows = read_csv(run / "metrics.csv")
    assert rows[0].keys() == {
        "update", "epoch", "train/loss", "train/perplexity", "train/lr", "train/words_per_s",
    }  # fmt: skip
    valid = [row["valid/perplexity"] for row in rows if "valid/perplexity" in row]
    assert len(valid) == 2
    assert min(valid) == result["valid/perplexity"]
    assert f"valid {min(valid):.2f}" in done.out
    assert f"test {result['test/perplexity']:.2f}" in done.out
    assert len(re.findall(r"\bw\d+\b", done.out)) <= 3 < len(done.out.splitlines())
    log = (run / "train_lm.log").read_text()
    assert "Epoch 2, update 24: train perplexity" in log


def test_experiments_are_all_here() -> None:
    assert EXPERIMENTS == [
        "awd_lstm", "awd_lstm_rh", "gal_large", "gal_medium",
        "zaremba_large", "zaremba_medium", "zaremba_small",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(lm, small, run, name: str) -> None:
    hidden = "[9,8]" if "awd" in name else "8"
    done = lm(
        f"experiment={name}", *small, f"model.hidden={hidden}", "name=run", "trainer.max_updates=2",
        "model.dropout.nr.p=0.3", "model.dropout.rh.space=random", "model.dropout.rh.p=0.1",
    )  # fmt: skip
    assert done.code == 0, done.err
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["position"]["updates"] == 2
    dropout = state["config"]["model"]["dropout"]
    assert dropout["nr"]["p"] == 0.3
    assert dropout["rh"] == {**dropout["rh"], "p": 0.1, "space": "random"}


@pytest.mark.slow
@pytest.mark.parametrize("level", ["word", "char"])
def test_a_raw_text_of_ones_own(lm, small, text, run, level: str) -> None:
    """Words that training lacks, no test text, one long line: trained, resumed, written."""
    (text / "train.txt").write_text(" ".join(f"w{i % 7}" for i in range(200)) + " rare")
    (text / "valid.txt").write_text("w1 w2 \u00e4ther " * 9)
    (text / "test.txt").unlink()
    options = (*small, f"data.level={level}", "trainer.test=false")
    done = lm(*options, "trainer.max_updates=2")
    assert done.code == 0, done.err
    assert f"train: {text}/train.txt, " in done.out
    assert f"valid: {text}/valid.txt, " in done.out
    assert ("bits a character" in done.out) == (level == "char")
    again = lm(*options, "trainer.max_updates=3", "resume=auto")
    assert (again.code, "Resumed from" in again.out) == (0, True), again.err
    prompt = {"word": "w1 w2", "char": "w1 w"}[level]
    done = lm("mode=sample", f"checkpoint={run}/best.pt", "name=s", f"sample.prompt='{prompt}'",
              "sample.words=20")  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith(prompt)
    done = lm(*small[:-1], "name=strict", f"data.level={level}", "trainer.test=false",
              "data.min_count=1")  # fmt: skip
    assert done.code == 2
    assert "data.min_count=2 in its training makes <unk> of what is there once" in done.err


def test_a_diverged_training_is_one_line(lm, small) -> None:
    done = lm(*small, "optim=sgd", "optim.lr=1e38", "optim.clip=null")
    assert done.code == 1
    assert re.fullmatch(
        r"train_lm: the (loss|valid perplexity) is (nan|inf) at update \d+: the training has "
        r"diverged\. .*\n",
        done.err,
    )


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(
    lm, trained, small, run, small_files
) -> None:
    before = (run / "last.pt").read_bytes()
    with small_files(9000):
        done = lm(*small, "resume=auto", "trainer.max_updates=2")
    assert done.code == 1
    assert done.err.startswith(f"train_lm: {run}/last.pt cannot be written: ")
    assert "the checkpoint before it is untouched" in done.err
    assert (run / "last.pt").read_bytes() == before
    assert lm(*small, "resume=auto", "trainer.max_updates=2").code == 0


@pytest.mark.slow
def test_engines_give_the_same_loss(lm, small, tmp_path: Path) -> None:
    found = {}
    for engine in ("auto", "naive", "portable"):
        options = (f"trainer.engine={engine}", f"name={engine}", "trainer.max_updates=3")
        assert lm(*small, *options).code == 0
        rows = read_csv(tmp_path / "runs/lm" / engine / "metrics.csv")
        found[engine] = [row["train/loss"] for row in rows if "train/loss" in row]
    assert found["naive"] == pytest.approx(found["auto"], rel=1e-5)
    assert found["portable"] == pytest.approx(found["auto"], rel=1e-5)


def test_low_precision_trains(lm, small) -> None:
    done = lm(*small, "trainer.precision=bf16-mixed", "trainer.max_updates=2")
    assert done.code == 0
    if bfloat16.known():
        assert "; engine cpu in bfloat16, products in bfloat16; " in done.out
    else:  # where it would be slower
        told = (
            "trainer.precision=bf16-mixed: float32 instead, for bfloat16 is no faster on this "
            "processor"
        )
        assert done.out.count(told) == 1
        assert f"; engine {ops.engine_for('cpu')}; " in done.out


@pytest.mark.skipif(ops.engine_for() != "cpu", reason="the native module was not built")
def test_products_in_bfloat16(lm, small, run, matmul_precision) -> None:
    """The switch is torch's, the start says what it does, and a checkpoint keeps it: going on is
    the same to the bit as never having stopped."""
    found = {}
    for name, options in {
        "whole": [["trainer.matmul_precision=medium", "trainer.max_updates=4"]],
        "resumed": [["trainer.matmul_precision=medium", "trainer.max_updates=2"],
                    ["resume=auto", "trainer.max_updates=4"]],
        "other": [["trainer.matmul_precision=highest", "trainer.max_updates=4"]],
    }.items():  # fmt: skip
        for more in options:
            matmul_precision("highest")
            with bfloat16.emulated():
                done = lm(*small, f"name={name}", *more)
            assert done.code == 0, done.err
            assert torch.get_float32_matmul_precision() == "highest"  # for a sweep's next run
            assert ("; engine cpu, products in bfloat16; " in done.out) is (name != "other")
        state = torch.load(run.parent / name / "last.pt", weights_only=True)
        found[name] = state["model"]["decoder.weight"]
        assert state["matmul_precision"] == ("highest" if name == "other" else "medium")
    assert torch.equal(found["whole"], found["resumed"])
    assert not torch.equal(found["whole"], found["other"])


def test_a_grid_runs_and_a_diverged_run_counts_as_the_worst(lm, small, tmp_path: Path) -> None:
    done = lm(
        *small, "hparams_search=grid", "trainer.max_updates=2", "optim=sgd", "optim.clip=null",
        "optim.lr=1e38,1", "model.dropout.nr.p=0.1", "model.dropout.nr.space=structured",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Counts as the worst: the " in done.out
    found = sorted(tmp_path.glob("runs/lm/multirun/run/*/result.json"))
    assert [path.parent.name for path in found] == ["1"]
