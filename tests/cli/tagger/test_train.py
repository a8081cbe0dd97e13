"""``opennmt_sd_train_tagger``, from a command line to files and exit codes, on a tiny corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.tagger.trained import Trained
from opennmt_sd.training.loggers import read_csv

EXPERIMENTS = ("lample", "ma_hovy", "ncrfpp")


@pytest.mark.usefixtures("drawn_curves")
def test_the_default_does_all_of_it(tagger, small, run) -> None:
    done = tagger(*small, "name=run", "trainer.epochs=2", "data.glove=data/glove.txt")
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in run.iterdir()} == {
        ".hydra", "README.md", "best.pt", "last.pt", "tagger.pt", "curves.png", "metrics.csv",
        "result.json", "train_tagger.log",
    }  # fmt: skip
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((run / "result.json").read_text())
    assert {"valid/f1", "test/f1", "test/f1/PER", "test/errors/missed"} <= result.keys()
    rows = read_csv(run / "metrics.csv")
    assert {"train/loss", "train/sentences_per_s", "valid/f1"} <= {k for row in rows for k in row}
    # One decoding of the test data, with the best weights.
    assert sum("test/f1" in row for row in rows) == 1
    for text in (
        "3 sentences, 10 words, 5 entities, scheme IOB1",
        "10 words of training, 1 more with a vector only, ",
        "Word vectors cover 10.0% of the words of train",
        "test, best weights:\n",
        "errors: ",
        f"F1: valid {result['valid/f1']:.2f}",
    ):
        assert text in done.out, text
    card = (run / "README.md").read_text()
    assert "### test" in card
    assert "glove.txt`, which cover 10.0% of the training words" in card
    assert Trained.load(run).tags([["Paris"]])[0][0][0] in "OS"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains(tagger, small, run, name: str) -> None:
    done = tagger(
        f"experiment={name}", *small, "data.glove=data/glove.txt", "name=run",
        "trainer.max_updates=2", "model.dropout.rh.p=0.3", "model.dropout.nr.space=random",
    )  # fmt: skip
    assert done.code == 0, done.err
    config = torch.load(run / "last.pt", weights_only=True)["constants"]["tagger"]["config"]
    assert config["recurrent_dropout"] == {
        "p": 0.3, "space": "structured", "time": "random", "count": "bernoulli",
    }  # fmt: skip
    assert config["input_dropout"] == {
        "p": 0.5, "space": "random", "time": "random", "count": "bernoulli",
    }  # fmt: skip
    assert config["chars"] == ("lstm" if name == "lample" else "cnn")


@pytest.mark.slow
def test_columns_and_encoding_go_along(tagger, small, run, data, tmp_path: Path) -> None:
    """Numbers in front, two columns of tags, comments: as GermEval has them, in Latin-1."""
    rows = "# a note\n1\tPétër\tB-PER\tO\n2\tmet\tO\tO\n3\tMary\tB-PER\tB-X\n\n"
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (data / name).write_bytes((rows * 3).encode("latin-1"))
    given = ("data.columns.tag=3", "data.encoding=latin-1")
    done = tagger(*small, *given, "name=run", "trainer.epochs=25", "optim.lr=0.02")
    assert done.code == 0, done.err
    where = "words in column 2 (the first holds running numbers), tags in column 3"
    assert f"3 sentences, 9 words, 6 entities, scheme IOB2; {where}\n" in done.out
    model = Trained.load(run)
    assert (model.types, sorted(model.vocabulary.words)) == (["PER"], ["mary", "met", "pétër"])
    # Evaluation reads the same files as they were read for training.
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
    assert done.code == 0, done.err
    assert "all     100.00  100.00 100.00         6" in done.out
    # Other files have their own encoding; the columns stay as in training.
    (tmp_path / "new").write_text(rows, encoding="utf-8")
    use = ("mode=predict", f"checkpoint={run}", "predict.input=new", "predict.output=out")
    done = tagger(*use, "name=p")
    assert done.code == 0, done.err
    assert where in done.out
    assert (tmp_path / "out").read_text().splitlines()[1] == "1\tPétër\tB-PER\tO\tB-PER"
    assert "all     100.00  100.00 100.00         2" in done.out
    done = tagger(*use, "data.columns.tag=4", "name=q")
    assert "tags in column 4" in done.out
    done = tagger(*use, "data.columns.word=null", "data.columns.tag=null", "name=r")
    assert "(column 3 holds tags too: data.columns.tag=3 reads them)" in done.out
    done = tagger(*use, "data.columns.word=5", "name=s")
    assert (done.code, done.err) == (
        2,
        f"train_tagger: {tmp_path}/new: data.columns.word=5, but its rows have 4 columns: name one "
        "of these, or data.columns.word=null to let it be found\n",
    )


def test_recipes_are_the_published_ones() -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from opennmt_sd.config import tagger as schema

    schema.register()
    # chars, H, rates of nr and fc, learning rate, momentum, clip, decay, reduction, epochs
    recipes = {
        "ma_hovy": ("cnn", 200, 0.5, 0.5, 0.015, 0.9, 5, 0.05, "mean", 50),
        "lample": ("lstm", 100, 0.5, 0, 0.01, 0, 5, 0, "sum", 100),
        "ncrfpp": ("cnn", 100, 0.5, 0.5, 0.015, 0, None, 0.05, "sum", 100),
    }
    for name, recipe in recipes.items():
        GlobalHydra.instance().clear()
        with initialize_config_module("opennmt_sd.conf.tagger", version_base="1.3"):
            cfg = compose("train_tagger", [f"experiment={name}"])
        model, optim = cfg.model, cfg.optim
        assert recipe == (
            model.chars, model.hidden, model.dropout.nr.p, model.dropout.fc.p, optim.lr,
            optim.momentum, optim.clip, optim.schedule.decay, optim.reduction, cfg.trainer.epochs,
        ), name  # fmt: skip
        assert (model.word_dim, model.head, cfg.data.batch_size) == (100, "crf", 10)
        assert (model.dropout.nr.space, model.dropout.nr.time) == ("structured", "random")


@pytest.mark.slow
def test_a_search_looks_for_the_highest_score(tagger, small, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    done = tagger(
        *small, "name=run", "hparams_search=optuna", "hydra.sweeper.n_trials=2",
        "trainer.epochs=3",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = tmp_path / "runs/tagger/multirun/run"
    found = [json.loads(p.read_text())["valid/f1"] for p in folder.glob("*/result.json")]
    best = (folder / "optimization_results.yaml").read_text()
    assert len(found) == 2
    assert f"best_value: {max(found)}" in best
