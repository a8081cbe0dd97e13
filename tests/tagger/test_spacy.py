"""The spaCy component."""

from __future__ import annotations

import pickle
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, 'structured_ner has no tagger: name one, nlp.add_pipe("structured_ner", config='),
        ({"path": "nowhere.pt"}, "nowhere.pt: there is no such checkpoint"),
    ],
)
def test_no_tagger(config: dict, text: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("structured_ner", config=config)
    with pytest.raises(CheckpointError) as error:
        nlp("Peter")
    assert str(error.value).startswith(text)


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
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert component.COLOURS[0] in page


def test_a_page_of_text_keeps_its_blanks() -> None:
    sentences, spaces = component.tokenize("Mary (here) met.\nNew\nYork")
    tags = [["S-PER", *"OOOOO"], ["B-LOC", "E-LOC"]]
    page = component.html(component.documents(sentences, tags, "en", spaces), "")
    assert " (here) met." in page
    assert "New York" in page


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
