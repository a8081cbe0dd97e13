"""What a trained tagger is used for: ``mode=evaluate`` and ``mode=predict``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.tagger.trained import Trained


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_evaluate_and_predict(tagger, small, run, data, tmp_path: Path, cell: str) -> None:
    pytest.importorskip("spacy", reason="the page and plain text need spaCy")
    options = ("name=run", f"model.cell={cell}", "trainer.epochs=30", "optim.lr=0.02")
    assert tagger(*small, *options).code == 0
    assert f"bidirectional {cell.upper()}, 1 layer of 8 units" in (run / "README.md").read_text()
    done = tagger("mode=evaluate", f"checkpoint={run}", "split=valid", "name=e")
    assert done.code == 0, done.err
    assert "all      100.00  100.00 100.00         5" in done.out
    use = ("mode=predict", f"checkpoint={run / 'tagger.pt'}", "name=p")
    files = ("predict.output=out.conll", "predict.html=page.html")
    done = tagger(*use, "predict.input=data/eng.testa", *files)
    assert done.code == 0, done.err
    out = (tmp_path / "out.conll").read_text()
    assert out.startswith("-DOCSTART- -X- O O O\n\nPeter NNP I-NP I-PER I-PER\n")
    assert (tmp_path / "page.html").read_text().count("<mark") == 5
    (tmp_path / "text.txt").write_text("Peter Blackburn met Mary")
    done = tagger(*use, "predict.input=text.txt", "name=q")
    assert done.code == 0, done.err
    written = tmp_path / "runs/tagger/q/predicted.conll"
    assert written.read_text().startswith("Peter\tB-PER\nBlackburn\tI-PER\nmet\tO\n")


@pytest.mark.slow
def test_neither_checkpoint_nor_input_is_overwritten(
    tagger, trained, run, data, tmp_path: Path
) -> None:
    text = (data / "eng.testa").read_text()
    (run / "tagger.pt").rename(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    for key in ("predict.output", "predict.html"):
        for name in ("model", "link", "data/eng.testa"):
            done = tagger(
                "mode=predict", "checkpoint=model", "predict.input=data/eng.testa", f"{key}={name}"
            )
            fault = f"{key}={tmp_path / name}: would overwrite another file of this run: take anoth"
            assert (done.code, fault in done.err) == (2, True), done.err
    assert (tmp_path / "model").read_bytes() == before
    assert (data / "eng.testa").read_text() == text


@pytest.mark.slow
def test_a_folder_is_a_checkpoint_to_every_mode(tagger, trained, run) -> None:
    for _ in ("tagger.pt", "best.pt"):
        done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
        assert done.code == 0, done.err
        use = ("mode=predict", f"checkpoint={run}", "predict.input=data/eng.train", "name=p")
        assert tagger(*use).code == 0
        (run / "tagger.pt").unlink(missing_ok=True)


def test_evaluate_reads_the_data_it_is_given(tagger, small, run, data) -> None:
    three = ("data.train=data/eng.train", "data.valid=data/eng.testa", "data.test=data/eng.testb")
    assert tagger("data=conll", *three, *small[1:], "name=run", "trainer.max_updates=1").code == 0
    other = data.with_name("other")
    shutil.copytree(data, other)
    (other / "eng.testb").write_text("Peter NNP I-NP I-PER\n\n")
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e", "data.path=other")
    assert done.code == 0, done.err
    assert re.search(r"all( +[\d.]+){3} +1\n", done.out), done.out


def test_evaluate_reads_one_file(tagger, small, run, data, tmp_path: Path) -> None:
    assert tagger(*small, "name=run", "trainer.max_updates=1").code == 0
    shutil.rmtree(data)
    (tmp_path / "folder").mkdir()
    for name in ("one.conll", "folder/test.txt"):
        (tmp_path / name).write_text("Peter NNP I-NP I-PER\nZurich NNP I-NP I-ZOO\n\n")
    evaluate = ("mode=evaluate", f"checkpoint={run}", "name=e")
    for place in ("data.test=one.conll", "data.path=folder"):
        done = tagger(*evaluate, place)
        assert done.code == 0, done.err
        assert re.search(r"all( +[\d.]+){3} +2\n", done.out), done.out
        assert "has 1 entities of type ZOO, which the training data lack" in done.out + done.err
    done = tagger(*evaluate, "data.test=one.conll", "split=valid")
    assert done.code == 2
    assert "data.valid=None: missing: name the file, or its folder with data.path" in done.err
    done = tagger(*evaluate, "data.path=folder", "split=valid")
    assert done.code == 2
    assert "folder does not hold the valid data of a data set: expected dev.conll; " in done.err
    assert "or eng.testa. Or name it: data.valid=..\n" in done.err


def test_a_training_does_without_test_data(tagger, small, run, data) -> None:
    (data / "eng.testb").unlink()
    rest = (*small[1:], "trainer.max_updates=1", "trainer.test=false")
    two = ("data=conll", "data.train=data/eng.train", "data.valid=data/eng.testa")
    for places, name in (("data.path=data",), "run"), (two, "two"):
        done = tagger(*places, *rest, f"name={name}")
        assert done.code == 0, done.err
        assert "F1: valid " in done.out
        assert ", test " not in done.out
    card = (run / "README.md").read_text()
    assert ("| valid | " in card, "| test | " in card) == (True, False)
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
    assert done.code == 2
    assert "does not hold the test data of a data set" in done.err


def test_a_tagger_without_its_data_asks_for_some(tagger, trained, run) -> None:
    Trained.load(run).save(run / "tagger.pt")  # as a spaCy pipeline stores it
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
    assert done.code == 2
    assert "data.path: missing; give it a value: data.path=..." in done.err
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e", "data.path=data")
    assert done.code == 0, done.err
    assert "all " in done.out
