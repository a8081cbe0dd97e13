"""A tagger's training goes on, bit for bit, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.training import checkpoint


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_resume_equals_one_training(tagger, small, run, tmp_path: Path, cell: str) -> None:
    common = (
        *small,
        f"model.cell={cell}",
        "trainer.epochs=2",
        "model.dropout.rh.p=0.3",
        "optim=sgd",
        "optim.momentum=0.9",
    )
    assert tagger(*common, "name=run").code == 0
    parts = (*common, "name=parts", "resume=auto")
    assert tagger(*parts, "trainer.max_updates=4", "trainer.save_every=1").code == 0
    done = tagger(*parts, "trainer.save_every=1")
    assert "Resumed from" in done.out, done.err
    whole, found = (
        torch.load(folder / "last.pt", weights_only=True)["model"]
        for folder in (run, tmp_path / "runs/tagger/parts")
    )
    assert all(torch.equal(found[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_a_training_from_before_columns_were_named_goes_on(tagger, small, trained, run) -> None:
    for file in ("last.pt", "tagger.pt"):
        state = checkpoint.read(run / file)
        del state["config"]["data"]["columns"], state["config"]["data"]["encoding"]
        checkpoint.write(run / file, state)
    done = tagger(*small, "name=run", "resume=auto", "trainer.max_updates=3")
    assert (done.code, "Resumed from" in done.out) == (0, True), done.err
    assert tagger("mode=evaluate", f"checkpoint={run}", "name=e").code == 0


@pytest.mark.slow
def test_a_training_from_before_there_was_a_choice_goes_on_as_it_was(
    tagger, small, trained, run
) -> None:
    for file in ("last.pt", "tagger.pt"):
        state = checkpoint.read(run / file)
        model, constants = state["config"]["model"], state["constants"]["tagger"]["config"]
        del model["cell"], constants["cell"]
        for place in ("nr", "rh", "fc"):
            del model["dropout"][place]["count"]
        for place in ("input_dropout", "dropout", "recurrent_dropout", "output_dropout"):
            del constants[place]["count"]
        checkpoint.write(run / file, state)
    options = (*small, "name=run", "resume=auto", "trainer.max_updates=3")
    done = tagger(*options, "model.cell=gru")
    assert (done.code, done.err) == (
        2,
        f"train_tagger: {run}/last.pt belongs to a training with other settings:\n"
        "  model.cell: lstm there, gru here\n"
        "  tagger.config.cell: lstm there, gru here\n"
        "Give it the same ones, or begin anew in another folder\n",
    )
    assert tagger("mode=evaluate", f"checkpoint={run}", "name=e").code == 0
    done = tagger(*options)
    assert (done.code, "Resumed from" in done.out) == (0, True), done.err


def test_a_tagger_without_a_training_cannot_go_on(tagger, small, trained, run) -> None:
    done = tagger(*small, "name=new", "resume=runs/tagger/run/tagger.pt")
    assert (done.code, done.err) == (
        2,
        f"train_tagger: {run}/tagger.pt holds weights and no state of a training: name a last.pt "
        "or best.pt\n",
    )
