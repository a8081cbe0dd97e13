"""Texts of one's own: raw words, characters, one long line, and what becomes <unk>."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from opennmt_sd.data import textfile
from opennmt_sd.lm import Corpus, CorpusError, LanguageModel, LMTask, Reading, sample
from opennmt_sd.lm.data import read


@pytest.fixture
def texts(tmp_path: Path):
    """Writes train.txt and valid.txt as they are, and reads them."""

    def load(train: str, valid: str, reading: Reading | None = None) -> Corpus:
        for name, text in (("train", train), ("valid", valid)):
            (tmp_path / f"{name}.txt").write_bytes(text.encode("utf-8"))
        return Corpus.load(tmp_path, reading, test=False)

    return load


def said(corpus: Corpus, split: str) -> list[str]:
    return [corpus.vocabulary.words[i] for i in corpus.splits[split].tolist()]


def test_a_raw_text_makes_its_own_unk(texts) -> None:
    corpus = texts("a cat sat\na dog ran\na cat ran\n", "a cat flew\n")
    assert said(corpus, "train") == [
        "a", "cat", "<unk>", "<eos>", "a", "<unk>", "ran", "<eos>", "a", "cat", "ran", "<eos>",
    ]  # fmt: skip
    assert said(corpus, "valid") == ["a", "cat", "<unk>", "<eos>"]
    assert corpus.unknown == {"train": 2, "valid": 1}


def test_a_text_that_needs_no_unk_has_none(texts) -> None:
    corpus = texts("a cat sat\na dog ran\n", "a dog sat\n")
    assert corpus.vocabulary.unk is None
    assert len(corpus.vocabulary) == 6
    assert texts("a a\n", "a\n", Reading(min_count=2)).vocabulary.unk is not None  # asked for


@pytest.mark.parametrize(
    ("reading", "valid"),
    [
        (Reading(min_count=3), "a cat <unk> <eos>"),
        (Reading(max_words=4), "a cat <unk> <eos>"),
        (Reading(max_words=3), "a <unk> <unk> <eos>"),
    ],
)
def test_rare_words_are_unk(texts, reading: Reading, valid: str) -> None:
    corpus = texts("a cat sat a\na dog sat a\na cat ran cat\n", "a cat sat\n", reading)
    assert " ".join(said(corpus, "valid")) == valid
    assert len(corpus.vocabulary) <= (reading.max_words or 4)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", " "])
def test_pieces_change_nothing(texts, monkeypatch, size: int, end: str) -> None:
    monkeypatch.setattr(textfile, "SIZE", size)
    text = "Ein B\u00e4r\r\n\r\n  l\u00e4uft\t\u2028\U0001f43b los\rjetzt" + end
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    corpus = texts(text, text)
    assert said(corpus, "train") == [w for line in lines for w in (*line.split(), "<eos>")]
    corpus = texts(text, text, Reading("char"))
    assert said(corpus, "train") == [c for line in lines for c in (*line, "<eos>")]
    assert said(corpus, "valid") == said(corpus, "train")


def test_one_long_line_is_one_line(texts) -> None:
    corpus = texts("one two " * 50, "two one")
    assert said(corpus, "train") == ["one", "two"] * 50 + ["<eos>"]
    corpus = texts("one two " * 50, "two one", Reading("char"))
    assert "".join(said(corpus, "train")) == "one two " * 50 + "<eos>"
    assert corpus.vocabulary.words == (" ", "o", "e", "n", "t", "w", "<eos>")


def test_other_encodings(texts, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_bytes(b"")
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_bytes("B\u00e4r\nB\u00e4r\n".encode("utf-16"))
    (tmp_path / "test.txt").unlink()
    corpus = Corpus.load(tmp_path, Reading(encoding="utf-16"), test=False)
    assert said(corpus, "train") == ["B\u00e4r", "<eos>"] * 2


def test_a_new_text_in_the_words_of_a_model(texts, tmp_path: Path) -> None:
    vocabulary = texts("a cat sat\na cat\n", "a cow\n").vocabulary
    (tmp_path / "new.txt").write_text("the cat\na cat\n")
    text = read(tmp_path / "new.txt", vocabulary)
    assert " ".join(vocabulary.words[i] for i in text.ids) == "<unk> cat <eos> a cat <eos>"
    assert text.unknown == 1
    closed = texts("a cat\n", "a cat\n").vocabulary
    with pytest.raises(CorpusError, match=r"new.txt, line 1: 'the' is not among the 3 words"):
        read(tmp_path / "new.txt", closed)
    letters = texts("a cat\n", "a cat\n", Reading("char")).vocabulary
    with pytest.raises(CorpusError, match=r"new.txt, line 1: 'h' is not among the 5 characters .* "
                       r"\(2 such characters in the file\)"):  # fmt: skip
        read(tmp_path / "new.txt", letters)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"level": "letter"}, "level 'letter' is unknown: use one of word, char"),
        ({"min_count": 0}, "min_count must be 1 or more, got 0"),
        ({"max_words": 2}, "max_words must be 3 or more, for <eos>, <unk> and a word: got 2"),
        ({"encoding": "klingon"}, "encoding 'klingon' is unknown: use a name that Python knows, "
         "such as utf-8, utf-16, latin-1 or cp1252"),
    ],
)  # fmt: skip
def test_no_way_to_read(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as error:
        Reading(**options)
    assert str(error.value) == text


def test_characters_are_learned_scored_and_written(texts) -> None:
    corpus = texts("abab\n" * 60, "abab\n" * 9, Reading("char"))
    torch.manual_seed(1)
    model = LanguageModel(len(corpus.vocabulary), embedding=8, hidden=16)
    task = LMTask(model, corpus, batch_size=4, unroll=10, eval_batch_size=1)
    assert task.unit == "characters"
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        task.start_epoch(0)
        for batch in task.batches(0):
            task.step(model, batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    scores = task.evaluate(model, "valid")
    assert scores["bits_per_character"] == pytest.approx(scores["loss"] / math.log(2))
    assert scores["bits_per_character"] < 0.5
    text = sample(model, corpus.vocabulary, words=9, prompt="ab", temperature=0)
    assert text == "abab\nabab\na"
    with pytest.raises(ValueError, match=r"prompt's 'c' is not among the model's 3 characters\. W"):
        sample(model, corpus.vocabulary, prompt="abc")


def test_without_a_test_text(texts) -> None:
    corpus = texts("a b\n" * 20, "a b\n" * 20)
    assert list(corpus.splits) == ["train", "valid"]
    model = LanguageModel(len(corpus.vocabulary), embedding=4, hidden=4)
    with pytest.raises(ValueError) as error:
        LMTask(model, corpus, batch_size=2).evaluate(model, "test")
    assert str(error.value) == "split 'test' is unknown: use one of valid"
