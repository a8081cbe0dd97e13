"""Reading and writing CoNLL column files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from opennmt_sd.data.textfile import TextError
from opennmt_sd.tagger import conll
from opennmt_sd.tagger.columns import ConllError
from opennmt_sd.tagger.conll import Sentence, read
from opennmt_sd.tagger.reading import read_table

CONLL = Path(os.environ["OPENNMT_SD_CORPORA"]) / "conll2003"
COUNTS = {
    "eng.train": (14_041, 203_621, 23_499, 946),
    "eng.testa": (3_250, 51_362, 5_942, 216),
    "eng.testb": (3_453, 46_435, 5_648, 231),
}


def test_sentences_documents_and_scheme(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        "-DOCSTART- -X- O O\n\nEU NNP I-ORG\nis V O\n\n\n-DOCSTART- -X- -X- O\nA B O\n-DOCSTART-\n"
        "C D I-LOC\nE F B-LOC"
    )
    caplog.set_level(logging.INFO)
    corpus = read(path)
    assert corpus.sentences == [
        Sentence(["EU", "is"], ["I-ORG", "O"], 3),
        Sentence(["A"], ["O"], 8),
        Sentence(["C", "E"], ["I-LOC", "B-LOC"], 10),
    ]
    assert (corpus.documents, corpus.scheme, corpus.words) == (3, "iob1", 5)
    assert caplog.messages == [
        f"{path}: 3 sentences, 5 words, 3 entities, scheme IOB1; words in "
        "column 1, tags in column 3"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\tO\nb\tO\n\t\nc\tO\n", [["a", "b"], ["c"]]),  # a line of a tab ends a sentence
        ("a b\tO\n", [["a b"]]),  # with tabs, a word may hold blanks
        ("\ufeffa  x   O\r\nb x O\r\n", [["a", "b"]]),  # BOM, runs of blanks, Windows line ends
        ("a\u2028b\u00a0c O\n\x85 O\n", [["a\u2028b\u00a0c", "\x85"]]),  # no line ends, no blanks
        ("\n\na O\n\n\n\n", [["a"]]),  # empty sentences are none
        ("# O\n#x O\n", [["#", "#x"]]),  # hash tags are words
    ],
)
def test_forms_of_rows(write, text: str, words: list[list[str]]) -> None:
    assert [sentence.words for sentence in read(write(text)).sentences] == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a N O\nb O\n",
            "{path}:2: 2 columns, but the first row (line 1) has 3: 'b O'. Every row needs the "
            "same columns, separated by blanks as there",
        ),
        (
            "\na\tO\nb\n",
            "{path}:3: 1 column, but the first row (line 2) has 2: 'b'. Every row needs the same "
            "columns, separated by a tab as there",
        ),
        ("a\tO\n\tO\n", "{path}:2: an empty column: '\\tO'. Fill it in"),
        (
            "a\n",
            "{path}:1: 1 column: 'a'. Training and scores need a tag beside each word, in the last "
            "column",
        ),
        (
            "a O\nb PER\n",
            "{path}:2: 'PER' in the last column is no tag: expected O, or B-, I-, E-, S-, L- or U- "
            "and a type",
        ),
        (
            "a O\rb O\r",
            "{path}:1: a carriage return within the line: 'a O\\rb O'. Lines must end with \\n or "
            "\\r\\n: convert it first",
        ),
        ("-DOCSTART- O\n\n", "{path} holds no sentence: expected a word and its tag on each line"),
        ("", "{path} holds no sentence"),
        ("a B-X\nb O\nc I-X\n", "{path} mixes tag schemes: 1 entities begin with B- (the first in"),
    ],
)
def test_broken_files_are_told(write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConllError) as error:
        read(path)
    assert str(error.value).startswith(message.format(path=path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="no is not there: check the path"):
        read(tmp_path / "no")


def annotated(path: Path, tags: list[list[str]]) -> list[str]:
    return list(read_table(path).annotated(tags))


def test_annotated_keeps_the_lines_and_adds_a_column(write) -> None:
    text = "-DOCSTART- -X- O O\n\nEU N I-ORG\nis V O\n\n\nA B O\n"
    lines = annotated(write(text), [["I-X", "O"], ["O"]])
    assert "\n".join(lines) + "\n" == (
        "-DOCSTART- -X- O O\n\nEU N I-ORG I-X\nis V O O\n\n\nA B O O\n"
    )
    assert annotated(write("a\tb"), [["O"]]) == ["a\tb\tO"]
    assert annotated(write("\x85\nb \n"), [["O", "O"]]) == ["\x85 O", "b O"]


def test_annotated_documents_have_columns_as_the_rows(write) -> None:
    # conlleval stops at a line with another number of columns.
    lines = annotated(write("-DOCSTART- -X- -X- O\n\nEU N I-NP I-ORG\n"), [["I-ORG"]])
    assert lines == ["-DOCSTART- -X- -X- O O", "", "EU N I-NP I-ORG I-ORG"]


def test_io_is_named(write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert read(write("a I-X\nb O\n")).scheme == "iob1"
    assert "scheme IOB1 (or IO: it has no B-); words" in caplog.text


@pytest.mark.skipif(not CONLL.exists(), reason=f"{CONLL} is not there")
@pytest.mark.parametrize("name", COUNTS)
def test_conll_2003(name: str) -> None:
    corpus = read(CONLL / name)
    count = sum(len(conll.schemes.entities(s.tags)) for s in corpus.sentences)
    assert (len(corpus.sentences), corpus.words, count, corpus.documents) == COUNTS[name]
    assert corpus.scheme == "iob1"
