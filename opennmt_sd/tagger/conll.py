"""CoNLL column files: one word a line, an empty line between sentences.

A row is a word and any number of further columns, the last one its tag, separated by tabs (if the
first row has one) or by blanks. ``-DOCSTART-`` lines, whatever else is on them, begin a document.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opennmt_sd.tagger import schemes

log = logging.getLogger(__name__)

DOCSTART = "-DOCSTART-"
TAB = "\t"
TAG = re.compile(r"O|[BIES]-\S.*")
BILOU = " (of BILOU, write L- as E-, and U- as S-)"


class ConllError(ValueError):
    """A file that cannot be used; the text gives file, line, rule and remedy."""


@dataclass(frozen=True)
class Sentence:
    """Words and, where the file has them, their tags; ``line`` is the first word's."""

    words: list[str]
    tags: list[str] = field(default_factory=list)
    line: int = 0


@dataclass(frozen=True)
class Corpus:
    """A file's sentences.

    Attributes:
        name: of the file.
        scheme: of its tags; None where it has no entity.
        documents: how many ``-DOCSTART-`` lines it has.
    """

    name: str
    sentences: list[Sentence]
    scheme: str | None
    documents: int = 0

    @property
    def words(self) -> int:
        return sum(len(sentence.words) for sentence in self.sentences)

    def in_scheme(self, scheme: str) -> list[list[str]]:
        """The tags of every sentence, in this scheme."""
        return [schemes.convert(sentence.tags, scheme) for sentence in self.sentences]


def read(path: Path | str) -> Corpus:
    """Read a file with tags, and say in the log what was found.

    Raises:
        ConllError: no sentence, a broken row, a row without a tag, or tags that fit no scheme.
        OSError: it cannot be opened.
    """
    path = Path(path)
    sentences, documents = read_rows(path, tagged=True)
    if not sentences:
        raise ConllError(f"{path} holds no sentence: expected a word and its tag on each line")
    try:
        scheme = schemes.detect(((s.line, s.tags) for s in sentences), str(path))
    except schemes.SchemeError as error:
        raise ConllError(str(error)) from None
    corpus = Corpus(str(path), sentences, scheme, documents)
    count = sum(len(schemes.entities(s.tags)) for s in sentences)
    log.info(
        "%s: %s sentences, %s words, %s entities, %s",
        path, f"{len(sentences):,}", f"{corpus.words:,}", f"{count:,}",
        f"scheme {scheme.upper()}" if scheme else "so no tag scheme",
    )  # fmt: skip
    return corpus


def read_rows(path: Path, *, tagged: bool) -> tuple[list[Sentence], int]:
    """Sentences, and how many documents are marked; without ``tagged`` the word column alone.

    Raises:
        ConllError: a broken row.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    documents = begin = 0
    for number, _, cells in rows(path):
        if cells and cells[0] != DOCSTART:
            if not words:
                begin = number
            words.append(cells[0])
            if tagged:
                tags.append(_tag(path, number, cells))
            continue
        documents += bool(cells)
        if words:
            sentences.append(Sentence(words, tags, begin))
            words, tags = [], []
    return sentences, documents


def read_text(path: Path) -> str:
    """A file's text, without the mark that some editors put before it.

    Raises:
        ConllError: not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConllError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it first"
        ) from None


def rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, line and cells of each line, and one empty line at the end.

    Lines end at ``\\n`` alone: a word may hold other characters that Unicode calls line ends. The
    cells of an empty line are none; those of a ``-DOCSTART-`` line, that one.

    Raises:
        ConllError: not UTF-8, lines that end otherwise, an empty cell, or another number of
            columns than the first row's.
    """
    text = read_text(path)
    lines = text.removesuffix("\n").split("\n") if text else []
    first: tuple[int, int] | None = None  # line and columns of the first row
    separator: str | None = None
    for number, raw in enumerate([*lines, ""], start=1):
        line = raw.rstrip("\r")
        if "\r" in line:
            raise ConllError(
                f"{path}:{number}: a carriage return within the line: {line[:40]!r}. Lines must "
                "end with \\n or \\r\\n: convert it first"
            )
        if not line.strip(" \t"):
            yield number, line, []
            continue
        if line.lstrip(" \t").startswith(DOCSTART):
            yield number, line, [DOCSTART]
            continue
        if first is None:
            separator = TAB if TAB in line else " "
        cells = line.split(TAB) if separator == TAB else re.split("[ \t]+", line.strip(" \t"))
        cells = [cell.strip(" ") for cell in cells]
        if first is None:
            first = number, len(cells)
        if len(cells) != first[1]:
            raise ConllError(
                f"{path}:{number}: {_columns(len(cells))}, but the first row (line {first[0]}) "
                f"has {first[1]}: {line!r}. Every row needs the same columns, separated by "
                f"{'a tab' if separator == TAB else 'blanks'} as there"
            )
        if not all(cells):
            raise ConllError(f"{path}:{number}: an empty column: {line!r}. Fill it in")
        yield number, line, cells


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _tag(path: Path, number: int, cells: Sequence[str]) -> str:
    if len(cells) == 1:
        raise ConllError(
            f"{path}:{number}: 1 column: {cells[0]!r}. Training and scores need a tag beside "
            "each word, in the last column"
        )
    tag = cells[-1]
    if not TAG.fullmatch(tag):
        raise ConllError(
            f"{path}:{number}: {tag!r} in the last column is no tag: expected O, or B-, I-, E- or "
            "S- and a type" + (BILOU if tag[:2] in ("L-", "U-") else "")
        )
    return tag


def annotate(path: Path, tags: Sequence[Sequence[str]]) -> Iterator[str]:
    """The file's lines, each row with a tag more as its last column: what ``conlleval`` reads.

    A ``-DOCSTART-`` line with as many columns as the rows gets an ``O``: ``conlleval`` wants one
    number of columns everywhere.

    Args:
        tags: of each sentence, as :func:`read_rows` gives them.
    """
    flat = iter([tag for sentence in tags for tag in sentence])
    lines = [(line, cells) for _, line, cells in rows(path)]
    width = next((len(cells) for _, cells in lines if cells and cells != [DOCSTART]), 0)
    for line, cells in lines[:-1]:  # the last is the empty one behind the end
        if cells == [DOCSTART]:
            tag = "O" if len(line.split()) == width else ""
        else:
            tag = next(flat) if cells else ""
        yield f"{line.rstrip(' ' + TAB)}{TAB if TAB in line else ' '}{tag}" if tag else line
