"""``opennmt_sd_train_lm``, from a command line to files and exit codes, on a tiny corpus."""

from __future__ import annotations

import fcntl
import json
import os
import re
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

from opennmt_sd.training import checkpoint
from opennmt_sd.training.loggers import read_csv

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "lm" / "experiment").glob("*.yaml"))
TINY = (
    "data.path=text", "data.batch_size=2", "data.unroll=5", "data.eval_batch_size=2",
    "model.embedding=8", "trainer.log_every=1", "sample.words=3", "trainer.accelerator=cpu",
)  # fmt: skip
SMALL = (*TINY, "model.hidden=8", "name=run")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "lm" / "run"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.usefixtures("drawn_curves")
def test_the_default_does_all_of_it(lm, run) -> None:
    done = lm(*SMALL, "trainer.epochs=2")
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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(lm, run, name: str) -> None:
    hidden = "[9,8]" if "awd" in name else "8"
    done = lm(
        f"experiment={name}", *TINY, f"model.hidden={hidden}", "name=run", "trainer.max_updates=2",
        "model.dropout.nr.p=0.3", "model.dropout.rh.space=random", "model.dropout.rh.p=0.1",
    )  # fmt: skip
    assert done.code == 0, done.err
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["position"]["updates"] == 2
    dropout = state["config"]["model"]["dropout"]
    assert dropout["nr"]["p"] == 0.3
    assert dropout["rh"] == {**dropout["rh"], "p": 0.1, "space": "random"}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_resume_auto_goes_on_and_equals_one_training(lm, run, tmp_path: Path, cell: str) -> None:
    options = (*SMALL, f"model.cell={cell}", "model.dropout.rh.p=0.3")
    assert lm(*options, "trainer.max_updates=20").code == 0
    whole = weights(run / "last.pt")
    parts = [*options, "name=parts", "resume=auto"]  # auto: also where there is nothing yet
    assert lm(*parts, "trainer.max_updates=7").code == 0
    done = lm(*parts, "trainer.max_updates=20")
    assert "Resumed from" in done.out
    found = weights(tmp_path / "runs/lm/parts/last.pt")
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_resume_of_awd_lstm_whose_lengths_are_random_and_weights_averaged(lm, run) -> None:
    options = (
        "experiment=awd_lstm", *TINY, "model.hidden=[9,8]", "data.unroll=9", "optim.lr=3",
        "optim.non_monotone=0", "trainer.evaluate_every=3", "trainer.save_every=2",
    )  # fmt: skip
    assert lm(*options, "name=run", "trainer.max_updates=40").code == 0
    assert lm(*options, "name=parts", "trainer.max_updates=25").code == 0
    done = lm(*options, "name=parts", "trainer.max_updates=40", "resume=auto")
    assert done.code == 0, done.err
    whole, found = (
        torch.load(path / "last.pt", weights_only=True) for path in (run, run.with_name("parts"))
    )
    assert len(whole["averaging"]["average"]) == len(whole["model"]) > 10
    for part in (("model",), ("averaging", "average")):
        a, b = whole, found
        for key in part:
            a, b = a[key], b[key]
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole["position"] == found["position"]


def test_several_processes_do_not_go_with_a_sweep(lm) -> None:
    done = lm("-m", *SMALL, "trainer.devices=2", "seed=1,2")
    assert done.code == 1
    assert (
        "trainer.devices=2: a sweep has one process a run: train without -m, or with 1" in done.err
    )


def test_resume_from_a_path_into_a_new_folder(lm, run, tmp_path: Path) -> None:
    lm(*SMALL, "trainer.max_updates=20")
    lm(*SMALL, "name=first", "trainer.max_updates=7")
    options = ("name=second", "trainer.max_updates=20", "resume=runs/lm/first/last.pt")
    assert lm(*SMALL, *options).code == 0
    found, whole = weights(tmp_path / "runs/lm/second/last.pt"), weights(run / "last.pt")
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_folder_with_a_training_is_not_overwritten(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    before = (run / "last.pt").read_bytes()
    done = lm(*SMALL)
    assert (done.code, done.err) == (
        2,
        f"train_lm: the configuration has one fault:\n  name=run: {run} holds a training already: "
        "go on with it (resume=auto), or take another name\n",
    )
    assert (run / "last.pt").read_bytes() == before


def test_resuming_another_training_into_it_does_not_overwrite_it_either(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    lm(*SMALL, "name=other", "trainer.max_updates=2")
    before = (run / "last.pt").read_bytes()
    done = lm(*SMALL, "resume=runs/lm/other/last.pt", "trainer.max_updates=3")
    assert done.code == 2
    assert f"name=run: {run} holds a training already" in done.err
    assert (run / "last.pt").read_bytes() == before
    done = lm(*SMALL, "resume=runs/lm/run/last.pt", "trainer.max_updates=3")  # its own
    assert done.code == 0, done.err


def test_a_folder_in_which_another_process_trains(lm, run) -> None:
    run.mkdir(parents=True)
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        done = lm(*SMALL, "trainer.max_updates=1", "resume=auto")
    finally:
        os.close(descriptor)
    assert (done.code, done.err) == (
        2,
        f"train_lm: the configuration has one fault:\n  name=run: another process trains in {run} "
        "now: take another name\n",
    )
    assert lm(*SMALL, "trainer.max_updates=1").code == 0


def test_resuming_another_model_is_refused(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    others = ("model.cell=gru", "model.hidden=16", "model.tied=false", "optim.lr=1")
    done = lm(*SMALL, "resume=auto", *others)
    assert (done.code, done.err) == (
        2,
        f"train_lm: {run}/last.pt belongs to a training with other settings:\n"
        "  model.cell: lstm there, gru here\n"
        "  model.hidden: 8 there, 16 here\n"
        "  model.tied: True there, False here\n"
        "  optim.lr: 0.002 there, 1.0 here\n"
        "Give it the same ones, or begin anew in another folder\n",
    )


def test_a_training_from_before_there_was_a_choice_goes_on_as_it_was(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    state = checkpoint.read(run / "last.pt")
    del state["config"]["model"]["cell"]
    for place in ("nr", "rh", "fc", "input", "words"):
        del state["config"]["model"]["dropout"][place]["count"]
    for file in ("last.pt", "best.pt"):
        checkpoint.write(run / file, state)
    done = lm(*SMALL, "resume=auto", "model.cell=gru")
    assert (done.code, "\n  model.cell: lstm there, gru here\nGive it" in done.err) == (2, True)
    done = lm(*SMALL, "resume=auto", "model.dropout.fc.count=exact")
    assert "\n  model.dropout.fc.count: bernoulli there, exact here\nGive it" in done.err
    for mode in ("evaluate", "sample"):
        done = lm(f"mode={mode}", f"checkpoint={run}/best.pt", f"name={mode}")
        assert done.code == 0, done.err
    done = lm(*SMALL, "resume=auto", "trainer.max_updates=2")
    assert (done.code, "Resumed from" in done.out) == (0, True), done.err


def test_resuming_on_another_text_is_refused(lm, text, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    (text / "train.txt").write_text((text / "train.txt").read_text() + "a new line\n")
    done = lm(*SMALL, "resume=auto")
    assert done.code == 2
    assert "\n  vocabulary: 12 entries there, 15 here\n" in done.err
    assert "\n  words.train: 120 there, 124 here\n" in done.err


def test_resuming_from_a_file_cut_short(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:-500])
    done = lm(*SMALL, "resume=auto")
    assert done.code == 2
    assert "is cut short, damaged or no checkpoint" in done.err
    assert "beside it there is best.pt" in done.err


def test_the_text_may_have_moved(lm, text, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    text.rename(text.with_name("moved"))
    assert lm(*SMALL, "resume=auto", "data.path=moved", "trainer.max_updates=2").code == 0
    done = lm("mode=evaluate", f"checkpoint={run}/best.pt", "data.path=moved", "name=again")
    assert done.code == 0, done.err


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_evaluate_gives_the_figures_of_the_training(lm, run, cell: str) -> None:
    lm(*SMALL, f"model.cell={cell}", "trainer.epochs=1")
    result = json.loads((run / "result.json").read_text())
    best = f"checkpoint={run}/best.pt"
    for split in ("valid", "test"):
        done = lm("mode=evaluate", best, f"split={split}", f"name={split}")
        assert done.code == 0, done.err
        assert f"{split} loss " in done.out
        assert f"perplexity {result[f'{split}/perplexity']:.5g}" in done.out
    done = lm("mode=sample", best, "sample.words=4", "sample.prompt='w0 w1'", "name=sample")
    assert done.out.startswith("w0 w1"), done.err


@pytest.mark.parametrize("trained", ["path", "files"])
def test_evaluate_reads_the_data_it_is_given(lm, text, run, trained: str) -> None:
    three = ["data=text", *(f"data.{n}=text/{n}.txt" for n in ("train", "valid", "test"))]
    lm(
        *(three if trained == "files" else ()),
        *SMALL[trained == "files" :],
        "trainer.max_updates=1",
    )
    other = text.with_name("other")
    shutil.copytree(text, other)
    (other / "test.txt").write_text("w1 w1 w1\nw1 w2 w3\n")

    def test_perplexity(*overrides: str) -> str:
        done = lm("mode=evaluate", "checkpoint=runs/lm/run/best.pt", "name=e", *overrides)
        assert done.code == 0, done.err
        return done.out.partition("test loss")[2]

    own, others = test_perplexity(), test_perplexity("data.path=other")
    assert own != others
    assert test_perplexity("name=run") == own  # its own folder: nothing is trained there
    assert test_perplexity("++data.path=other") == others
    assert test_perplexity(*(word.replace("text/", "other/") for word in three)) == others
    if trained == "files":
        assert test_perplexity("data.test=other/test.txt") == others


def test_evaluate_reads_no_other_text(lm, text, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    evaluate = ("mode=evaluate", f"checkpoint={run}/best.pt", "name=e")
    own = lm(*evaluate).out.partition("test loss")[2]
    (text / "train.txt").unlink()
    (text / "valid.txt").unlink()
    assert lm(*evaluate).out.partition("test loss")[2] == own
    assert lm(*evaluate, "data.test=text/test.txt").out.partition("test loss")[2] == own
    done = lm(*evaluate, "split=valid")
    assert (done.code, done.err) == (
        2,
        f"train_lm: split=valid: {text}/valid.txt is not there: name it, data.valid=FILE, or the "
        "folder that holds it, data.path=FOLDER\n",
    )


def test_evaluate_on_words_that_the_model_lacks(lm, text, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    done = lm("mode=evaluate", f"checkpoint={run}/best.pt", "data.path=null", "name=other")
    assert done.code == 2
    assert "'menenius' is not among the 12 words of the training text" in done.err
    lm(*SMALL[:-1], "name=unk", "trainer.max_updates=1", "data.min_count=2")
    (text / "new.txt").write_text("w1 x9\nw2 w3\n")
    done = lm("mode=evaluate", "checkpoint=runs/lm/unk/best.pt", "data.test=text/new.txt", "name=n")
    assert done.code == 0, done.err
    assert f"test: {text}/new.txt, 6 words with <eos>, 16.67% <unk>\n" in done.out


def test_sample_writes_text(lm, run) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    options = (
        "mode=sample",
        f"checkpoint={run}/best.pt",
        "sample.words=4",
        "sample.prompt='w0 w1'",
    )
    done = lm(*options, "name=first")
    assert done.code == 0, done.err
    assert done.out.startswith("w0 w1")
    assert lm(*options, "name=second").out == done.out
    assert lm(*options, "name=third", "sample.seed=1", "sample.temperature=3").out != done.out


def test_sample_without_a_checkpoint(lm) -> None:
    done = lm("mode=sample", "name=run")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has one fault:\n  checkpoint=None: mode=sample needs the path "
        "of a best.pt or last.pt\n",
    )


def test_all_faults_at_once(lm, tmp_path: Path) -> None:
    done = lm(
        "data=text", "data.train=text/train.txt", "data.valid=text/nowhere.txt",
        "model.dropout.nr.p=1.0", "model.dropout.rh.p=1.7", "model.dropout.fc.space=columns",
        "model.hidden=[8,9,16]", "model.embedding=8", "optim.lr=0", "optim.name=lion", "seed=-1",
        "optim.schedule.name=cosine", "trainer.epochs=0", "trainer.precision=8",
        "data.batch_size=0", "sample.temperature=-1", "logger=wandb", "resume=gone.pt", "name=run",
        "optim.betas=[0.9]",
    )  # fmt: skip
    assert done.code == 2
    faults = done.err.splitlines()
    assert faults == [
        "train_lm: the configuration has 19 faults:",
        "  seed=-1: must lie in [0, 2**32)",
        "  optim.name=lion: use one of sgd, adam, nt_asgd",
        "  optim.lr=0.0: must be above 0: it is the learning rate",
        "  optim.betas=[0.9]: must be two numbers in [0, 1)",
        "  optim.schedule.name=cosine: use one of constant, step_down, inverse",
        "  trainer.epochs=0: must be 1 or more",
        "  trainer.precision=8: use one of 32-true, 64-true, bf16-mixed, bf16-true, 16-mixed",
        "  model.dropout.nr.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  model.dropout.rh.p=1.7: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  model.dropout.fc.space=columns: use one of structured, random",
        "  model.dropout.input.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  data.batch_size=0: must be 1 or more",
        "  sample.temperature=-1.0: must be 0 or more; 0 takes the likeliest word",
        "  resume=gone.pt: there is no such file; use auto, or the path of a checkpoint",
        "  logger wandb needs the package wandb, which is not installed: pip install wandb, or "
        "leave logger=wandb out (metrics.csv is always written)",
        "  model.layers=2: contradicts model.hidden=[8, 9, 16]: leave it null",
        "  model.tied=True: needs one width for model.embedding=8 and the last of model.hidden="
        "[8, 9, 16]; make them equal, or tied=false",
        f"  data.valid={tmp_path}/text/nowhere.txt: there is no such file",
        "  data.test=None: missing: three files, or a folder with data.path, or trainer.test="
        "false, which does without it",
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("optim.betas=???", "optim.betas: missing; give it a value"),
        ("trainer.devices=???", "trainer.devices: missing; give it a value"),
        ("mode=???", "mode: missing; give it a value"),
        ("data=ptb", "data.path: missing; give it a value: data.path=..., a folder with ptb"),
        (
            "data=text",
            "data.path: missing; give it a value: data.path=..., a folder with train",
        ),
        (
            "experiment=zaremba_small",
            "scripts/prepare_ptb.py --help` says how to get them). For",
        ),
        ("model.cell=GRU", "model.cell=GRU: use one of lstm, gru"),
        ("model.cel=gru", "model.cel=gru: there is no such key; did you mean model.cell? There"),
        ("data.level=letter", "data.level=letter: use one of word, char"),
        ("data.min_count=0", "data.min_count=0: must be 1 or more"),
        ("data.max_words=2", "data.max_words=2: must be 3 or more"),
        ("data.encoding=klingon", "data.encoding 'klingon' is unknown: use a name that Python"),
        ("data.path=''", "data.path=: there is no such folder"),
        ("data.train=''", "data.path={text}: contradicts data.train, data.valid, data.test"),
        ("sample.seed=-1", "sample.seed=-1: must lie in [0, 2**32)"),
        (
            "+model.dropout.nr.rate=0.5",
            "model.dropout.nr.rate: there is no such key; use one of p, space, time, count",
        ),
        ("+logger.mine=3", "logger.mine: has no _target_"),
        (
            "+logger.mine._target_=no.such.Thing",
            "logger.mine cannot be made: Error locating target ",
        ),
    ],
)
def test_odd_values_are_faults_too(lm, text, override: str, fault: str) -> None:
    asks_for_a_text = override.startswith(("data=", "experiment="))
    options = SMALL[1:] if asks_for_a_text else SMALL
    done = lm(*options, override, "trainer.max_updates=1")
    assert done.code == 2
    assert fault.format(text=text) in done.err
    assert "Traceback" not in done.err


def test_a_rate_that_is_no_rate_names_key_and_rule(lm) -> None:
    done = lm(*SMALL, "model.dropout.nr.p=1.0", "model.dropout.fc.time=later")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has 3 faults:\n"
        "  model.dropout.nr.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing\n"
        "  model.dropout.fc.time=later: use one of random, fixed\n"
        "  model.dropout.input.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops "
        "nothing\n",
    )


def test_an_unknown_key_is_refused_by_name(lm) -> None:
    done = lm(*SMALL, "model.dropout.nr.rate=0.5")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has one fault:\n  model.dropout.nr.rate=0.5: there is no such "
        "key; use one of p, space, time, count\n",
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: (text / "train.txt").write_text(""), "train.txt is empty"),
        (lambda text: (text / "train.txt").write_text("one line\n"), "too few for batch_size 3"),
        (lambda text: (text / "valid.txt").write_bytes(b"w1\nw\xff\n"), "byte 0xff"),
        (
            lambda text: [
                (text / f"{n}.txt").write_text("w1\nw1\n") for n in ("train", "valid", "test")
            ],
            "too few for batch_size 3",
        ),
        (lambda text: (text / "test.txt").unlink(), "test.txt is not there"),
    ],
    ids=["empty", "one line", "not UTF-8", "too short", "missing"],
)
def test_a_text_that_cannot_be_used(lm, text, run, change, fault) -> None:
    change(text)
    done = lm(*SMALL, "data.batch_size=3")
    assert done.code == 2
    assert fault in done.err
    assert "Traceback" not in done.err
    assert not (run / "last.pt").exists()


@pytest.mark.parametrize("level", ["word", "char"])
def test_a_raw_text_of_ones_own(lm, text, run, level: str) -> None:
    """Words that training lacks, no test text, one long line: trained, resumed, written."""
    (text / "train.txt").write_text(" ".join(f"w{i % 7}" for i in range(200)) + " rare")
    (text / "valid.txt").write_text("w1 w2 \u00e4ther " * 9)
    (text / "test.txt").unlink()
    options = (*SMALL, f"data.level={level}", "trainer.test=false")
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
    done = lm(*SMALL[:-1], "name=strict", f"data.level={level}", "trainer.test=false",
              "data.min_count=1")  # fmt: skip
    assert done.code == 2
    assert "data.min_count=2 makes <unk> of what training holds once" in done.err


def test_an_unknown_word_in_the_prompt_is_told_before_the_training(lm, run) -> None:
    done = lm(*SMALL, "sample.prompt=hamlet")
    assert done.code == 2
    assert "the prompt's 'hamlet' is not among the model's 12 words" in done.err
    assert not (run / "last.pt").exists()


def test_a_diverged_training_is_one_line(lm) -> None:
    done = lm(*SMALL, "optim=sgd", "optim.lr=1e38", "optim.clip=null")
    assert done.code == 1
    assert re.fullmatch(
        r"train_lm: the (loss|valid perplexity) is (nan|inf) at update \d+: the training has "
        r"diverged\. .*\n",
        done.err,
    )


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(lm, run, small_files) -> None:
    lm(*SMALL, "trainer.max_updates=1")
    before = (run / "last.pt").read_bytes()
    with small_files(9000):
        done = lm(*SMALL, "resume=auto", "trainer.max_updates=2")
    assert done.code == 1
    assert done.err.startswith(f"train_lm: {run}/last.pt cannot be written: ")
    assert "the checkpoint before it is untouched" in done.err
    assert (run / "last.pt").read_bytes() == before
    assert lm(*SMALL, "resume=auto", "trainer.max_updates=2").code == 0


def test_engines_give_the_same_loss(lm, tmp_path: Path) -> None:
    found = {}
    for engine in ("auto", "naive", "portable"):
        options = (f"trainer.engine={engine}", f"name={engine}", "trainer.max_updates=3")
        assert lm(*SMALL, *options).code == 0
        rows = read_csv(tmp_path / "runs/lm" / engine / "metrics.csv")
        found[engine] = [row["train/loss"] for row in rows if "train/loss" in row]
    assert found["naive"] == pytest.approx(found["auto"], rel=1e-5)
    assert found["portable"] == pytest.approx(found["auto"], rel=1e-5)


def test_low_precision_trains(lm) -> None:
    done = lm(*SMALL, "trainer.precision=bf16-mixed", "trainer.max_updates=2")
    assert done.code == 0
    assert "; engine portable in bfloat16" in done.out, "what runs, not what would in float32"


def test_a_grid_runs_and_a_diverged_run_counts_as_the_worst(lm, tmp_path: Path) -> None:
    done = lm(
        *SMALL, "hparams_search=grid", "trainer.max_updates=2", "optim=sgd", "optim.clip=null",
        "optim.lr=1e38,1", "model.dropout.nr.p=0.1", "model.dropout.nr.space=structured",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Counts as the worst: the " in done.out
    found = sorted(tmp_path.glob("runs/lm/multirun/run/*/result.json"))
    assert [path.parent.name for path in found] == ["1"]


def test_a_run_that_fails_does_not_end_the_sweep(lm, tmp_path: Path) -> None:
    done = lm("-m", *SMALL, "trainer.max_updates=1", "model.dropout.fc.p=0.1,1.0,0.3")
    assert done.code == 1
    assert "model.dropout.fc.p=1.0: must lie in [0, 1)" in done.err
    assert "Traceback" not in done.err
    found = sorted(tmp_path.glob("runs/lm/multirun/run/*/result.json"))
    assert [path.parent.name for path in found] == ["0", "2"]


def test_optuna_minimises_what_main_returns(lm, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="no optuna sweeper here")
    done = lm(*SMALL, "hparams_search=optuna", "hydra.sweeper.n_trials=2", "trainer.max_updates=2")
    assert done.code == 0, done.err
    folder = tmp_path / "runs/lm/multirun/run"
    best = (folder / "optimization_results.yaml").read_text()
    scores = [
        json.loads(path.read_text())["valid/perplexity"] for path in folder.glob("*/result.json")
    ]
    assert len(scores) == 2
    assert float(re.search(r"best_value: (.*)", best)[1]) == pytest.approx(min(scores))


@pytest.fixture
def command(warm_python: list[str]) -> Callable[..., list[str]]:
    """The words of a command line, of a process of its own."""
    return lambda *overrides: [*warm_python, str(ROOT / "scripts" / "train_lm.py"), *overrides]


def shell(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
def test_joblib_runs_two_at_a_time(command, text, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="no joblib launcher here")
    done = shell(
        tmp_path,
        *command(*SMALL, "hparams_search=joblib", "trainer.max_updates=2"),
        "model.dropout.nr.p=0.1,0.2", "model.dropout.rh.p=0.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/lm/multirun/run/*/result.json"))) == 2


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
    command, lm, text, run, tmp_path: Path
) -> None:
    options = (*SMALL, "trainer.epochs=400", "trainer.threads=1", "trainer.log_every=10")
    process = subprocess.Popen(
        command(*options), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(process, run / "metrics.csv", lines=30)
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
    command, text, run, warm_python, tmp_path: Path
) -> None:
    # Started by Fabric, stopped by SIGTERM; then from an early checkpoint up to the same update,
    # started by torchrun.
    options = (*SMALL, "trainer.epochs=400", "trainer.threads=1", "trainer.evaluate_every=4")
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
    text, run, warm_python, tmp_path: Path
) -> None:
    installed = str(Path(sys.executable).with_name("opennmt_sd_train_lm"))
    done = shell(tmp_path, *warm_python, installed, *SMALL, "trainer.max_updates=2")
    assert done.returncode == 0, done.stderr
    assert (run / "best.pt").exists()
    shown = shell(tmp_path, *warm_python, installed, "--help")
    assert "experiment: awd_lstm, awd_lstm_rh, gal_large" in shown.stdout
