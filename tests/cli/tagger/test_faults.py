"""Values and files that a tagger cannot be trained with: all told at once, in our words."""

from __future__ import annotations

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")


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


def test_conll_files_may_lie_in_a_folder(tagger, small, run, data) -> None:
    done = tagger("data=conll", *small, "name=run", "trainer.max_updates=1")
    assert done.code == 0, done.err
    assert f"{data}/eng.train: " in done.out  # the log names the files
    done = tagger("data=conll", "data.train=data/eng.train", "name=other")
    assert done.code == 2
    missing = "missing: three files, or a folder with data.path"
    assert f"data.valid=None: {missing}\n" in done.err
    assert f"data.test=None: {missing}, or trainer.test=false, which does without it\n" in done.err


def test_a_broken_file_ends_with_code_2(tagger, small, data) -> None:
    (data / "eng.testa").write_text("Peter I-PER\nBlackburn\n")
    done = tagger(*small)
    assert done.code == 2
    assert "eng.testa:2: 1 column, but the first row (line 1) has 2" in done.err
    assert "Traceback" not in done.err
