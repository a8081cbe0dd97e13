"""What a trained language model is used for: ``mode=evaluate`` and ``mode=sample``."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_evaluate_gives_the_figures_of_the_training(lm, small, run, cell: str) -> None:
    lm(*small, f"model.cell={cell}", "trainer.epochs=1")
    result = json.loads((run / "result.json").read_text())
    best = f"checkpoint={run}/best.pt"
    for split in ("valid", "test"):
        done = lm("mode=evaluate", best, f"split={split}", f"name={split}")
        assert done.code == 0, done.err
        assert f"{split} loss " in done.out
        assert f"perplexity {result[f'{split}/perplexity']:.5g}" in done.out
    done = lm("mode=sample", best, "sample.words=4", "sample.prompt='w0 w1'", "name=sample")
    assert done.out.startswith("w0 w1"), done.err


@pytest.mark.slow
@pytest.mark.parametrize("by", ["path", "files"])
def test_evaluate_reads_the_data_it_is_given(lm, lm_once, small, text, run, by: str) -> None:
    three = ["data=text", *(f"data.{n}=text/{n}.txt" for n in ("train", "valid", "test"))]
    places = [*three, *small[1:]] if by == "files" else small
    lm_once(*places, "trainer.max_updates=1")
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
    if by == "files":
        assert test_perplexity("data.test=other/test.txt") == others


@pytest.mark.slow
def test_evaluate_reads_no_other_text(lm, trained, text, run) -> None:
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


@pytest.mark.slow
def test_evaluate_on_words_that_the_model_lacks(lm, trained, small, text, run) -> None:
    done = lm("mode=evaluate", f"checkpoint={run}/best.pt", "data.path=null", "name=other")
    assert done.code == 2
    assert "'menenius' is not among the 12 words of the training text" in done.err
    lm(*small[:-1], "name=unk", "trainer.max_updates=1", "data.min_count=2")
    (text / "new.txt").write_text("w1 x9\nw2 w3\n")
    done = lm("mode=evaluate", "checkpoint=runs/lm/unk/best.pt", "data.test=text/new.txt", "name=n")
    assert done.code == 0, done.err
    assert f"test: {text}/new.txt, 6 words with <eos>, 16.67% <unk>\n" in done.out


def test_sample_writes_text(lm, trained, run) -> None:
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


def test_an_unknown_word_in_the_prompt_is_told_before_the_training(lm, small, run) -> None:
    done = lm(*small, "sample.prompt=hamlet")
    assert done.code == 2
    assert "the prompt's 'hamlet' is not among the model's 12 words" in done.err
    assert not (run / "last.pt").exists()
