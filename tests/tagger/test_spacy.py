"""The spaCy component."""

from __future__ import annotations

import json
import pickle
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import opennmt_sd
from opennmt_sd import StructuredGRU

spacy = pytest.importorskip("spacy", reason="the component needs spaCy")

from opennmt_sd.tagger import spacy as component  # noqa: E402 - spaCy first
from opennmt_sd.tagger.trained import Trained  # noqa: E402
from opennmt_sd.training.checkpoint import CheckpointError  # noqa: E402

TEXT = "Mary Smith met Peter Blackburn. New York"
FOUND = [("Mary Smith", "PER"), ("Peter Blackburn", "PER"), ("New York", "LOC")]


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    trained.save(tmp_path / "model" / "tagger.pt")
    return tmp_path / "model"


@pytest.fixture
def nlp(folder: Path):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("structured_ner", config={"path": str(folder), "batch_size": 2})
    return nlp


def found(doc) -> list[tuple[str, str]]:
    return [(entity.text, entity.label_) for entity in doc.ents]


def test_entities(nlp) -> None:
    assert found(nlp(TEXT)) == FOUND
    assert found(nlp("")) == []
    assert nlp.get_pipe("structured_ner").labels == ("LOC", "MISC", "ORG", "PER")


def test_a_tagger_of_grus(trained_gru: Trained, tmp_path: Path) -> None:
    trained_gru.save(tmp_path / "tagger.pt")
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("structured_ner", config={"path": str(tmp_path)})
    assert found(nlp(TEXT)) == FOUND
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    assert found(again(TEXT)) == FOUND
    assert type(again.get_pipe("structured_ner").trained.model.recurrent) is StructuredGRU


def test_white_space_is_no_word(nlp, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    tags = Trained.tags
    monkeypatch.setattr(
        Trained, "tags", lambda self, s, size: (seen.extend(s), tags(self, s, size))[1]
    )
    doc = nlp("\n\nMary  Smith met \n Peter\tBlackburn.\n\n New\nYork \n")
    assert [word for words in seen for word in words] == [t.text for t in doc if not t.is_space]
    assert found(doc) == [
        ("Mary  Smith", "PER"), ("Peter\tBlackburn", "PER"), ("New\nYork", "LOC"),
    ]  # fmt: skip
    assert found(nlp(" \n\n ")) == []


def test_pickle(nlp) -> None:
    assert found(pickle.loads(pickle.dumps(nlp))(TEXT)) == FOUND


def test_without_sentences_a_document_is_one(nlp) -> None:
    nlp.remove_pipe("sentencizer")
    assert ("Mary Smith", "PER") in found(nlp("Mary Smith met Peter Blackburn"))


def test_pipe_in_batches_gives_the_same(nlp, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT, "", "Peter met", *["EU rejects German call"] * 5]
    one_by_one = [found(nlp(text)) for text in texts]
    sizes = []
    tags = Trained.tags
    monkeypatch.setattr(
        Trained, "tags", lambda self, s, size: (sizes.append(len(s)), tags(self, s, size))[1]
    )
    docs = list(nlp.pipe(texts, batch_size=4))
    assert [found(doc) for doc in docs] == one_by_one
    assert [doc.text for doc in docs] == texts
    assert sizes == [4, 4]  # sentences: 2 + 0 + 1 + 1, and 4


def test_to_disk_brings_the_tagger_along(nlp, folder: Path, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(folder)
    again = spacy.load(tmp_path / "pipeline")
    assert found(again(TEXT)) == FOUND
    assert again.get_pipe("structured_ner").batch_size == 2


def test_to_bytes(nlp) -> None:
    again = spacy.blank("en")
    again.add_pipe("sentencizer")
    again.add_pipe("structured_ner")
    again.from_bytes(nlp.to_bytes())
    assert found(again(TEXT)) == FOUND


def test_entities_that_are_there_stay(nlp) -> None:
    ruler = nlp.add_pipe("entity_ruler", before="structured_ner")
    ruler.add_patterns([{"label": "X", "pattern": "Mary"}, {"label": "X", "pattern": "met"}])
    assert found(nlp(TEXT)) == [("Mary", "X"), ("met", "X"), *FOUND[1:]]


def test_evaluate(nlp) -> None:
    from spacy.training import Example

    doc = nlp.make_doc(TEXT)
    example = Example.from_dict(doc, {"entities": [(0, 10, "PER"), (15, 30, "LOC")]})
    scores = nlp.evaluate([example])
    assert scores["ents_per_type"]["PER"] == {"p": 0.5, "r": 1.0, "f": pytest.approx(2 / 3)}


def test_no_tagger() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("structured_ner")
    for use in (lambda: nlp("Peter"), nlp.initialize):
        with pytest.raises(CheckpointError) as error:
            use()
        assert str(error.value) == (
            'structured_ner has no tagger: name one, nlp.add_pipe("structured_ner", config={'
            '"path": ..}), or in a training configuration [initialize.components.structured_ner] '
            "path = .."
        )


def test_a_wrong_path_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nlp = spacy.blank("en")
    with pytest.raises(CheckpointError) as error:
        nlp.add_pipe("structured_ner", config={"path": "nowhere.pt"})
    assert str(error.value).startswith(
        f"structured_ner: {tmp_path}/nowhere.pt: there is no such checkpoint. (A saved pipeline"
    )
    assert nlp.pipe_names == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is a folder without a tagger"):
        nlp.add_pipe("structured_ner", config={"path": "empty"})


def test_a_relative_path_is_of_the_folder_of_now(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nlp = spacy.blank("en")
    nlp.add_pipe("structured_ner", config={"path": folder.name})
    monkeypatch.chdir("/")
    assert ("Mary Smith", "PER") in found(nlp("Mary Smith met Peter Blackburn"))


def test_a_saved_pipeline_does_not_say_where_its_tagger_lay(nlp, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    for file in (tmp_path / "pipeline").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file
    assert nlp.config["components"]["structured_ner"]["path"] is not None
    # One from before this was so, whose tagger's first file is gone.
    old = (tmp_path / "pipeline" / "config.cfg").read_text().replace("path = null", 'path = "/no"')
    (tmp_path / "pipeline" / "config.cfg").write_text(old)
    with pytest.raises(CheckpointError, match="/no: there is no such checkpoint") as error:
        spacy.load(tmp_path / "pipeline")
    assert "config={'components.structured_ner.path': None})" in str(error.value)
    config = {"components.structured_ner.path": None}
    assert found(spacy.load(tmp_path / "pipeline", config=config)(TEXT)) == FOUND


def test_package(nlp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spacy.cli.package import package

    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "out").mkdir()
    package(tmp_path / "pipeline", tmp_path / "out", create_sdist=False)
    inner = tmp_path / "out" / "en_pipeline-0.0.0"
    needs = json.loads((inner / "meta.json").read_text())["requirements"]
    ours = Requirement(next(need for need in needs if need.startswith("opennmt_sd")))
    assert ours.extras == {"tagger"}
    assert opennmt_sd.__version__ in ours.specifier
    assert sum(need.startswith("opennmt_sd") for need in needs) == 1
    again = spacy.load(inner / "en_pipeline" / "en_pipeline-0.0.0")
    assert found(again(TEXT)) == FOUND
    again.to_disk(tmp_path / "again")
    needs = json.loads((tmp_path / "again" / "meta.json").read_text())["requirements"]
    assert list(map(Requirement, needs)) == [ours]


def test_initialize_names_the_tagger(folder: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("structured_ner")
    nlp.config["initialize"]["components"]["structured_ner"] = {"path": str(folder)}
    nlp.initialize()
    assert ("Mary Smith", "PER") in found(nlp("Mary Smith met Peter Blackburn"))
    nlp.config["initialize"]["components"]["structured_ner"] = {"path": "nowhere"}
    with pytest.raises(CheckpointError, match="nowhere: there is no such checkpoint"):
        nlp.initialize()


FORK = """
import os, signal, sys
import spacy, torch
from opennmt_sd.tagger import spacy as component
from opennmt_sd.tagger.trained import Trained

if __name__ == "__main__":
    os.register_at_fork(after_in_child=lambda: signal.alarm(60))  # a child that waits for ever
    torch.set_num_threads(4)
    trained = Trained.load(sys.argv[1])
    nlp = component.pipeline(trained)
    trained.model.recurrent.exact = sys.argv[2] == "torch"  # its own layer, or ours
    texts = ["Peter Blackburn met Mary Smith in New York. " * 40] * 8
    alone = [[(e.text, e.label_) for e in doc.ents] for doc in nlp.pipe(texts)]
    torch.randn(512, 512) @ torch.randn(512, 512)  # torch's threads are there now, if not before
    torch.randn(4096, 256).softmax(1)
    several = [
        [(e.text, e.label_) for e in doc.ents]
        for doc in nlp.pipe(texts, n_process=2, batch_size=2)
    ]
    assert several == alone
    print(len(several), torch.get_num_threads())
"""


@pytest.mark.parametrize(("cell", "layer"), [("lstm", "ours"), ("gru", "torch")])
def test_several_processes_after_the_parent_ran(
    make, tmp_path: Path, run_warm, cell: str, layer: str
) -> None:
    # As wide as it takes for torch to use its threads.
    task = make(cell=cell, hidden=100, word_dim=50)
    Trained(task.model, task.vocabulary).save(tmp_path / "tagger.pt")
    (tmp_path / "fork.py").write_text(FORK)
    done = run_warm(str(tmp_path / "fork.py"), str(tmp_path / "tagger.pt"), layer)
    assert done.stdout == "8 4\n", done.stderr


def test_batch_size() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1 sentence, got 0"):
        spacy.blank("en").add_pipe("structured_ner", config={"batch_size": 0})


def test_html(trained: Trained) -> None:
    sentences = [["Mary", "Smith", "<b>"], ["Paris", "met"]]
    docs = component.documents(sentences, trained.tags(sentences))
    page = component.html(docs, "Entities in <a>")
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>Entities in &lt;a&gt;</title>" in page
    assert page.count("<mark") == 2
    assert "<span>Mary Smith</span><small><bdi>PER</bdi></small></mark> &lt;b&gt; </p>" in page
    assert component.html([], "none").count("<p ") == 0


def test_tokenize() -> None:
    words = lambda text: component.tokenize(text)[0]  # noqa: E731
    assert words("A title\n \nIt is one.\r\n\r\nTwo") == [
        ["A", "title"], ["It", "is", "one", "."], ["Two"],
    ]  # fmt: skip
    assert words("one line\nor two") == [["one", "line", "or", "two"]]
    assert sum(map(len, words("word " * 210_000))) == 210_000  # more than spaCy's 1,000,000


def test_entry_point() -> None:
    (ours,) = [p for p in entry_points(group="spacy_factories") if p.name == "structured_ner"]
    assert ours.value == "opennmt_sd.tagger.spacy:make"
