"""``opennmt_sd_train_tagger``, from a command line to files and exit codes, on a tiny corpus."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.cli.train_tagger import main
from opennmt_sd.tagger.trained import Trained
from opennmt_sd.training import checkpoint
from opennmt_sd.training.loggers import read_csv

EXPERIMENTS = ("lample", "ma_hovy", "ncrfpp")
TRAIN = """-DOCSTART- -X- O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
met VBD I-VP O
Mary NNP I-NP I-PER

BRUSSELS NNP I-NP I-LOC
1996-08-22 CD I-NP O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
"""
TINY = (
    "data.path=data", "data.batch_size=1", "model.word_dim=6", "model.char_dim=4",
    "model.char_width=4", "model.hidden=8", "trainer.log_every=1", "trainer.accelerator=cpu",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (folder / name).write_text(TRAIN)
    numbers = " ".join(["0.25"] * 6)
    (folder / "glove.txt").write_text(f"peter {numbers}\nparis {numbers}\n")
    return folder


@pytest.fixture
def tagger(call, data) -> Callable:
    return lambda *overrides: call(main, *overrides)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tagger" / "run"


@pytest.mark.usefixtures("drawn_curves")
def test_the_default_does_all_of_it(tagger, run) -> None:
    done = tagger(*TINY, "name=run", "trainer.epochs=2", "data.glove=data/glove.txt")
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
def test_every_experiment_trains(tagger, run, name: str) -> None:
    done = tagger(
        f"experiment={name}", *TINY, "data.glove=data/glove.txt", "name=run",
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


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_resume_equals_one_training(tagger, run, tmp_path: Path, cell: str) -> None:
    common = (
        *TINY,
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


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_evaluate_and_predict(tagger, run, data, tmp_path: Path, cell: str) -> None:
    pytest.importorskip("spacy", reason="the page and plain text need spaCy")
    options = ("name=run", f"model.cell={cell}", "trainer.epochs=30", "optim.lr=0.02")
    assert tagger(*TINY, *options).code == 0
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


def test_columns_and_encoding_go_along(tagger, run, data, tmp_path: Path) -> None:
    """Numbers in front, two columns of tags, comments: as GermEval has them, in Latin-1."""
    rows = "# a note\n1\tPétër\tB-PER\tO\n2\tmet\tO\tO\n3\tMary\tB-PER\tB-X\n\n"
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (data / name).write_bytes((rows * 3).encode("latin-1"))
    given = ("data.columns.tag=3", "data.encoding=latin-1")
    done = tagger(*TINY, *given, "name=run", "trainer.epochs=25", "optim.lr=0.02")
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


def test_a_training_from_before_columns_were_named_goes_on(tagger, run) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=2").code == 0
    for file in ("last.pt", "tagger.pt"):
        state = checkpoint.read(run / file)
        del state["config"]["data"]["columns"], state["config"]["data"]["encoding"]
        checkpoint.write(run / file, state)
    done = tagger(*TINY, "name=run", "resume=auto", "trainer.max_updates=3")
    assert (done.code, "Resumed from" in done.out) == (0, True), done.err
    assert tagger("mode=evaluate", f"checkpoint={run}", "name=e").code == 0


def test_a_training_from_before_there_was_a_choice_goes_on_as_it_was(tagger, run) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=2").code == 0
    for file in ("last.pt", "tagger.pt"):
        state = checkpoint.read(run / file)
        model, constants = state["config"]["model"], state["constants"]["tagger"]["config"]
        del model["cell"], constants["cell"]
        for place in ("nr", "rh", "fc"):
            del model["dropout"][place]["count"]
        for place in ("input_dropout", "dropout", "recurrent_dropout", "output_dropout"):
            del constants[place]["count"]
        checkpoint.write(run / file, state)
    options = (*TINY, "name=run", "resume=auto", "trainer.max_updates=3")
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


def test_neither_checkpoint_nor_input_is_overwritten(tagger, run, data, tmp_path: Path) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=1").code == 0
    (run / "tagger.pt").rename(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    for key in ("predict.output", "predict.html"):
        for name in ("model", "link", "data/eng.testa"):
            done = tagger(
                "mode=predict", "checkpoint=model", "predict.input=data/eng.testa", f"{key}={name}"
            )
            text = f"{key}={tmp_path / name}: would overwrite another file of this run: take anoth"
            assert (done.code, text in done.err) == (2, True), done.err
    assert (tmp_path / "model").read_bytes() == before
    assert (data / "eng.testa").read_text() == TRAIN


def test_a_folder_is_a_checkpoint_to_every_mode(tagger, run) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=1").code == 0
    for _ in ("tagger.pt", "best.pt"):
        done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
        assert done.code == 0, done.err
        use = ("mode=predict", f"checkpoint={run}", "predict.input=data/eng.train", "name=p")
        assert tagger(*use).code == 0
        (run / "tagger.pt").unlink(missing_ok=True)


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


def test_a_search_looks_for_the_highest_score(tagger, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    done = tagger(
        *TINY, "name=run", "hparams_search=optuna", "hydra.sweeper.n_trials=2",
        "trainer.epochs=3",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = tmp_path / "runs/tagger/multirun/run"
    found = [json.loads(p.read_text())["valid/f1"] for p in folder.glob("*/result.json")]
    best = (folder / "optimization_results.yaml").read_text()
    assert len(found) == 2
    assert f"best_value: {max(found)}" in best


def test_every_fault_at_once(tagger, run) -> None:
    done = tagger(
        "model.chars=rnn", "model.cell=rnn", "model.head=svm", "model.char_window=2",
        "data.scheme=bmes", "model.dropout.nr.p=1.5", "data.batch_size=0", "data.unknown=2",
        "data.path=nowhere", "data.glove=nothing", "optim.reduction=max", "name=run",
    )  # fmt: skip
    assert done.code == 2
    for fault in (
        "model.chars=rnn: use one of cnn, lstm, none",
        "model.cell=rnn: use one of lstm, gru",
        "model.head=svm: use one of crf, softmax",
        "data.scheme=bmes: use one of iob1, iob2, bioes, bilou",
        "model.dropout.nr.p=1.5: must lie in [0, 1)",
        "data.batch_size=0: must be 1 or more",
        "data.unknown=2.0: must lie in [0, 1]",
        "nowhere: there is no such folder",
        "nothing: there is no such file",
        "optim.reduction=max: use one of mean, sum",
    ):
        assert fault in done.err, fault
    assert not (run / "last.pt").exists()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (("model.char_window=2",), "model.char_window=2: must be odd for chars=cnn: it is centred"),
        (("model.chars=lstm", "model.char_width=5"), "model.char_width=5: must be even for chars="),
        (("data.train=x",), "contradicts data.train, data.valid, data.test: give one of both"),
        (("mode=predict",), "checkpoint=None: mode=predict needs the path of a tagger.pt or best"),
        (("mode=predict",), "predict.input=None: mode=predict needs a file"),
        (("mode=tag",), "mode=tag: use one of train, evaluate, predict"),
        (("mode=predict", "predict.input=no"), "no: there is no such file"),
        (("mode=predict", "predict.input=data"), "data: is no ordinary file, and it is read more"),
        (
            ("mode=predict", "predict.input=data/eng.train", "predict.output=no/x"),
            "no/x: there is no such folder to write it to",
        ),
        (
            ("mode=predict", "predict.input=data/eng.train", "predict.output=data/eng.train"),
            "eng.train: would overwrite another file of this run: take another name",
        ),
        (
            ("mode=predict", "predict.input=data/eng.train", "predict.html=data"),
            "data: is a folder: name a file in it",
        ),
        (
            ("mode=predict", "predict.input=data/glove.txt", "predict.language=xx-none"),
            "predict.language=xx-none: plain text needs spaCy's tokenizer: [E048]",
        ),
        (
            ("data.columns.word=0",),
            "data.columns: word column 0: 1 is the first column, -1 the last",
        ),
        (
            ("data.columns.word=2", "data.columns.tag=2"),
            "data.columns: word and tag are both column 2: each needs its own",
        ),
        (("data.encoding=klingon",), "data.encoding 'klingon' is unknown: use a name that Python"),
        (("data.columns.word=9",), "data.columns.word=9, but its rows have 4 columns: name one of"),
        (("data.columns.tag=2",), "'NNP' in column 2 is no tag: expected O, or B-"),
        (
            ("mode=predict", "checkpoint=data", "predict.input=data/eng.train"),
            "data is a folder without a tagger.pt or best.pt: name the folder of a tagger's",
        ),
        (("mode=evaluate", "checkpoint=data"), "data is a folder without a tagger.pt or best.pt"),
        (
            ("mode=predict", "predict.input=data/eng.train", "predict.output=new.pt"),
            "new.pt: is a checkpoint's name, and what is written is text: take another",
        ),
        (("model.word_dim=7", "data.glove=data/glove.txt"), "set model.word_dim=6, or take"),
    ],
)
def test_faults(tagger, overrides: tuple[str, ...], text: str) -> None:
    done = tagger("data.path=data", *overrides)
    assert done.code == 2
    assert text in done.err


@pytest.mark.parametrize("experiment", [(), ("experiment=ma_hovy",)])
def test_conll_2003_is_not_replaced_by_the_sample(tagger, experiment) -> None:
    done = tagger("data=conll2003", *experiment)
    assert (done.code, done.err) == (
        2,
        "train_tagger: the configuration has 2 faults:\n"
        "  data.glove: missing; give it a value: data.glove=...\n"
        "  data.path: missing; give it a value: data.path=..., a folder with eng.train, eng.testa "
        "and eng.testb (`python scripts/prepare_conll.py --help` says how to get them). For other "
        "data say data=wnut17, which ship, or data=conll with files of your own\n",
    )
    done = tagger("data=conll")
    assert (done.code, done.err) == (
        2,
        "train_tagger: the configuration has one fault:\n  data.path: missing; give it a value: "
        "data.path=..., a folder with train.txt, valid.txt and test.txt; or name three files: "
        "data.train=... data.valid=... data.test=...\n",
    )


def test_conll_files_may_lie_in_a_folder(tagger, run, data) -> None:
    done = tagger("data=conll", *TINY, "name=run", "trainer.max_updates=1")
    assert done.code == 0, done.err
    assert f"{data}/eng.train: " in done.out  # the log names the files
    done = tagger("data=conll", "data.train=data/eng.train", "name=other")
    assert done.code == 2
    assert done.err.count("missing: three files, or a folder with data.path\n") == 2


def test_a_tagger_without_a_training_cannot_go_on(tagger, run) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=1").code == 0
    done = tagger(*TINY, "name=new", "resume=runs/tagger/run/tagger.pt")
    assert (done.code, done.err) == (
        2,
        f"train_tagger: {run}/tagger.pt holds weights and no state of a training: name a last.pt "
        "or best.pt\n",
    )


def test_evaluate_reads_the_data_it_is_given(tagger, run, data) -> None:
    three = ("data.train=data/eng.train", "data.valid=data/eng.testa", "data.test=data/eng.testb")
    assert tagger("data=conll", *three, *TINY[1:], "name=run", "trainer.max_updates=1").code == 0
    other = data.with_name("other")
    shutil.copytree(data, other)
    (other / "eng.testb").write_text("Peter NNP I-NP I-PER\n\n")
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e", "data.path=other")
    assert done.code == 0, done.err
    assert re.search(r"all( +[\d.]+){3} +1\n", done.out), done.out


def test_a_tagger_without_its_data_asks_for_some(tagger, run) -> None:
    assert tagger(*TINY, "name=run", "trainer.max_updates=1").code == 0
    Trained.load(run).save(run / "tagger.pt")  # as a spaCy pipeline stores it
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e")
    assert done.code == 2
    assert "data.path: missing; give it a value: data.path=..." in done.err
    done = tagger("mode=evaluate", f"checkpoint={run}", "name=e", "data.path=data")
    assert done.code == 0, done.err
    assert "all " in done.out


def test_a_broken_file_ends_with_code_2(tagger, data) -> None:
    (data / "eng.testa").write_text("Peter I-PER\nBlackburn\n")
    done = tagger(*TINY)
    assert done.code == 2
    assert "eng.testa:2: 1 column, but the first row (line 1) has 2" in done.err
    assert "Traceback" not in done.err
