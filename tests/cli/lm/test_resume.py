"""A language model's training goes on, bit for bit, or says why it cannot."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.training import checkpoint


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_resume_goes_on_and_equals_one_training(lm, small, run, cell: str) -> None:
    """By itself, in its folder; or into a new folder, from the path of a checkpoint."""
    options = (*small, f"model.cell={cell}", "model.dropout.rh.p=0.3")
    assert lm(*options, "trainer.max_updates=20").code == 0
    whole = weights(run / "last.pt")
    parts = [*options, "name=parts", "resume=auto"]  # auto: also where there is nothing yet
    assert lm(*parts, "trainer.max_updates=7").code == 0
    new = ("name=new", "resume=runs/lm/parts/last.pt")
    for words in ([*options, *new], parts):
        done = lm(*words, "trainer.max_updates=20")
        assert "Resumed from" in done.out, done.err
    for name in ("new", "parts"):
        found = weights(run.with_name(name) / "last.pt")
        assert all(torch.equal(found[key], whole[key]) for key in whole)


@pytest.mark.slow
def test_resume_of_awd_lstm_whose_lengths_are_random_and_weights_averaged(lm, small, run) -> None:
    options = (
        "experiment=awd_lstm", *small, "model.hidden=[9,8]", "data.unroll=9", "optim.lr=3",
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


def test_a_folder_with_a_training_is_not_overwritten(lm, trained, small, run) -> None:
    before = (run / "last.pt").read_bytes()
    done = lm(*small)
    assert (done.code, done.err) == (
        2,
        f"train_lm: the configuration has one fault:\n  name=run: {run} holds a training already: "
        "go on with it (resume=auto), or take another name\n",
    )
    assert (run / "last.pt").read_bytes() == before


@pytest.mark.slow
def test_resuming_another_training_into_it_does_not_overwrite_it_either(
    lm, trained, small, run
) -> None:
    lm(*small, "name=other", "trainer.max_updates=2")
    before = (run / "last.pt").read_bytes()
    done = lm(*small, "resume=runs/lm/other/last.pt", "trainer.max_updates=3")
    assert done.code == 2
    assert f"name=run: {run} holds a training already" in done.err
    assert (run / "last.pt").read_bytes() == before
    done = lm(*small, "resume=runs/lm/run/last.pt", "trainer.max_updates=3")  # its own
    assert done.code == 0, done.err


def test_a_folder_in_which_another_process_trains(lm, small, run) -> None:
    run.mkdir(parents=True)
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        done = lm(*small, "trainer.max_updates=1", "resume=auto")
    finally:
        os.close(descriptor)
    assert (done.code, done.err) == (
        2,
        f"train_lm: the configuration has one fault:\n  name=run: another process trains in {run} "
        "now: take another name\n",
    )
    assert lm(*small, "trainer.max_updates=1").code == 0


def test_resuming_another_model_is_refused(lm, trained, small, run) -> None:
    others = ("model.cell=gru", "model.hidden=16", "model.tied=false", "optim.lr=1")
    done = lm(*small, "resume=auto", *others)
    assert (done.code, done.err) == (
        2,
        f"train_lm: {run}/last.pt belongs to a training with other settings:\n"
        "  model.cell: lstm there, gru here\n"
        "  model.hidden: 8 there, 16 here\n"
        "  model.tied: True there, False here\n"
        "  optim.lr: 0.002 there, 1.0 here\n"
        "Give it the same ones, or begin anew in another folder\n",
    )


@pytest.mark.slow
def test_a_training_from_before_there_was_a_choice_goes_on_as_it_was(
    lm, trained, small, run
) -> None:
    state = checkpoint.read(run / "last.pt")
    del state["config"]["model"]["cell"]
    for place in ("nr", "rh", "fc", "input", "words"):
        del state["config"]["model"]["dropout"][place]["count"]
    for file in ("last.pt", "best.pt"):
        checkpoint.write(run / file, state)
    done = lm(*small, "resume=auto", "model.cell=gru")
    assert (done.code, "\n  model.cell: lstm there, gru here\nGive it" in done.err) == (2, True)
    done = lm(*small, "resume=auto", "model.dropout.fc.count=exact")
    assert "\n  model.dropout.fc.count: bernoulli there, exact here\nGive it" in done.err
    for mode in ("evaluate", "sample"):
        done = lm(f"mode={mode}", f"checkpoint={run}/best.pt", f"name={mode}")
        assert done.code == 0, done.err
    done = lm(*small, "resume=auto", "trainer.max_updates=2")
    assert (done.code, "Resumed from" in done.out) == (0, True), done.err


def test_resuming_on_another_text_is_refused(lm, trained, small, text, run) -> None:
    (text / "train.txt").write_text((text / "train.txt").read_text() + "a new line\n")
    done = lm(*small, "resume=auto")
    assert done.code == 2
    assert "\n  vocabulary: 12 entries there, 15 here\n" in done.err
    assert "\n  words.train: 120 there, 124 here\n" in done.err


def test_resuming_from_a_file_cut_short(lm, trained, small, run) -> None:
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:-500])
    done = lm(*small, "resume=auto")
    assert done.code == 2
    assert "is cut short, damaged or no checkpoint" in done.err
    assert "beside it there is best.pt" in done.err


@pytest.mark.slow
def test_the_text_may_have_moved(lm, trained, small, text, run) -> None:
    text.rename(text.with_name("moved"))
    assert lm(*small, "resume=auto", "data.path=moved", "trainer.max_updates=2").code == 0
    done = lm("mode=evaluate", f"checkpoint={run}/best.pt", "data.path=moved", "name=again")
    assert done.code == 0, done.err
