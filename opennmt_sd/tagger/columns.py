"""Column files: which lines are words, and in which column the words and their tags are.

A row is a word and any number of further columns, separated by tabs (if the first row has one) or
by blanks; an empty line ends a sentence. ``-DOCSTART-`` lines, whatever else is on them, begin a
document. Where the first column holds running numbers, as in CoNLL-U and GermEval, the words are in
the second, lines that begin with ``#`` are comments, and rows numbered ``3-4`` or ``3.1`` (words in
one piece, words left out) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from opennmt_sd.data.textfile import TextError, check_encoding, read_text
from opennmt_sd.tagger.schemes import is_tag

DOCSTART = "-DOCSTART-"
TAB = "\t"
HASH = "#"
NUMBER = re.compile(r"[0-9]{1,9}")
NO_WORD = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")  # CoNLL-U's multiword tokens, empty nodes
SUFFIXED = re.compile(r"(\S+)-([BIESLU])")
ROW, EMPTY, DOCUMENT, ASIDE = "row", "empty", "document", "aside"


class ConllError(TextError):
    """Columns that cannot be used; the text gives file, line, rule and remedy."""


@dataclass(frozen=True)
class Columns:
    """How a column file is to be read; what is None is found out.

    Args:
        word, tag: the column of each; 1 is the first, -1 the last. Default for words: the first, or
            the second behind running numbers; for tags: the last.
        comment: what comment lines begin with. Default: ``#`` in a file with running numbers, else
            there are none (a word may well begin with ``#``).
        encoding: of the text. Default UTF-8.

    Raises:
        ValueError: a column 0, one column for both, an empty comment mark, an unknown encoding.
    """

    word: int | None = None
    tag: int | None = None
    comment: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name, column in (("word", self.word), ("tag", self.tag)):
            if column == 0:
                raise ValueError(f"{name} column 0: 1 is the first column, -1 the last")
        if self.word is not None and self.word == self.tag:
            raise ValueError(f"word and tag are both column {self.word}: each needs its own")
        if self.comment == "":
            raise ValueError("an empty comment mark would make every line a comment")
        check_encoding(self.encoding)


class Line(NamedTuple):
    """A line: its number from 1, its text, what it is, and the cells of a row."""

    number: int
    text: str
    kind: str
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A column file that was read.

    Attributes:
        path: of the file.
        asked: how it was to be read.
        lines: all, in order.
        word, tag: the columns, from 0; ``tag`` is None where a row is nothing but its word.
        numbered: whether the first column holds running numbers.
        width: how many columns a row has; 0 where there is no row.
    """

    path: Path
    asked: Columns
    lines: list[Line]
    word: int
    tag: int | None
    numbered: bool
    width: int

    def __str__(self) -> str:
        """Where words and tags are, for a log."""
        words = f"words in column {self.word + 1}"
        if self.numbered and self.word:
            words += " (the first holds running numbers)"
        if self.tag is None:
            return words
        tags = f"{words}, tags in column {self.tag + 1}"
        if self.numbered and self.asked.tag is None and (others := self._others()):
            tags += f" (column {others[0]} holds tags too: data.columns.tag={others[0]} reads them)"
        return tags

    @property
    def documents(self) -> int:
        """How many lines begin a document."""
        return sum(line.kind == DOCUMENT for line in self.lines)

    def sentences(self) -> Iterator[list[Line]]:
        """Give the rows of each sentence that has any."""
        rows: list[Line] = []
        for line in self.lines:
            if line.kind == ROW:
                rows.append(line)
            elif line.kind != ASIDE and rows:
                yield rows
                rows = []
        if rows:
            yield rows

    def no_tag(self) -> str | None:
        """Tell which row has no tag, and what to do; None where all have one."""
        if self.tag is None:
            first = next((line for line in self.lines if line.kind == ROW), None)
            return first and (
                f"{self.path}:{first.number}: {_count(self.width)}: {first.text!r}. Training and "
                "scores need a tag beside each word, in the last column"
                + (" or in that of data.columns.tag=.." if self.width > 1 else "")
            )
        for line in self.lines:
            if line.kind == ROW and not is_tag(line.cells[self.tag]):
                return self._not_a_tag(line, line.cells[self.tag])
        return None

    def _not_a_tag(self, line: Line, cell: str) -> str:
        last = self.tag == self.width - 1
        where = "the last column" if last else f"column {(self.tag or 0) + 1}"
        text = (
            f"{self.path}:{line.number}: {cell!r} in {where} is no tag: expected O, or B-, I-, E-, "
            "S-, L- or U- and a type"
        )
        if (found := SUFFIXED.fullmatch(cell)) and cell[1:2] != "-":
            text += f". Write the letter first: {found[2]}-{found[1]}"
        if others := self._others():
            text += f". Column {others[0]} holds tags: data.columns.tag={others[0]} reads them"
        return text

    def _others(self) -> list[int]:
        """Further columns that hold tags, from 1."""
        rows = [line.cells for line in self.lines if line.kind == ROW]
        columns = [list(column) for column in zip(*rows)]
        return [
            number
            for number, cells in enumerate(columns, start=1)
            if number - 1 not in (self.word, self.tag)
            and all(map(is_tag, cells))
            and set(cells) != {"O"}
        ]

    def annotated(self, tags: Sequence[Sequence[str]]) -> Iterator[str]:
        """Give the lines, each row with a tag more as its last column: what ``conlleval`` reads.

        A ``-DOCSTART-`` line with as many columns as the rows gets an ``O``: ``conlleval`` wants
        one number of columns everywhere. A row that is passed over gets ``_``.

        Args:
            tags: of the words of each of :meth:`sentences`.

        Raises:
            ConllError: a tag with a blank in it, where blanks separate the columns.
        """
        flat = iter([tag for sentence in tags for tag in sentence])
        for line in self.lines:
            cell = next(flat) if line.kind == ROW else ""
            if line.cells and line.kind == ASIDE:
                cell = "_"
            elif line.kind == DOCUMENT and len(line.text.split()) == self.width:
                cell = "O"
            separator = TAB if TAB in line.text else " "
            if " " in cell and separator == " ":
                raise ConllError(
                    f"{self.path}:{line.number}: the tag {cell!r} has a blank in it, which columns "
                    "separated by blanks cannot hold: separate this file's columns by tabs"
                )
            yield f"{line.text.rstrip(' ' + TAB)}{separator}{cell}" if cell else line.text


def read_table(path: Path | str, columns: Columns | None = None) -> Table:
    """Read a column file. Lines end at ``\\n`` alone: Unicode's other line ends may be in words.

    Raises:
        ConllError: lines that end otherwise, an empty cell, another number of columns than the
            first row's, or a column that there is not.
        TextError: it cannot be opened, or is not text of this encoding.
    """
    path, columns = Path(path), columns or Columns()
    text = read_text(path, columns.encoding)
    raw = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    for number, line in enumerate(raw, start=1):
        if "\r" in line:
            raise ConllError(
                f"{path}:{number}: a carriage return within the line: {line[:40]!r}. Lines must "
                "end with \\n or \\r\\n: convert it first"
            )
    numbered = _numbered(raw)
    comment = columns.comment or (HASH if numbered and columns.word != 1 else None)
    lines, width = _lines(path, raw, comment)
    word = _column(path, "word", columns.word or (2 if numbered else 1), width)
    tag: int | None = _column(path, "tag", columns.tag or -1, width)
    if tag == word:
        if columns.tag is not None and width > 1:
            raise ConllError(
                f"{path}: words and tags are both read from column {word + 1}: name the column of "
                "the words, data.columns.word=.., or of the tags, data.columns.tag=.."
            )
        tag = None
    lines = [_special(line, word, numbered) if line.kind == ROW else line for line in lines]
    return Table(path, columns, lines, word, tag, numbered, width)


def _special(line: Line, word: int, numbered: bool) -> Line:
    """What looks like a row, but is none."""
    if line.cells[word] == DOCSTART:
        return line._replace(kind=DOCUMENT, cells=[])
    if numbered and word and NO_WORD.fullmatch(line.cells[0]):
        return line._replace(kind=ASIDE)
    return line


def _lines(path: Path, raw: Iterable[str], comment: str | None) -> tuple[list[Line], int]:
    """All lines, and how many columns the rows have."""
    lines: list[Line] = []
    first: tuple[int, int] | None = None  # line and columns of the first row
    separator = " "
    for number, text in enumerate(raw, start=1):
        if not text.strip(" \t"):
            lines.append(Line(number, text, EMPTY, []))
            continue
        if comment and text.startswith(comment):
            lines.append(Line(number, text, ASIDE, []))
            continue
        if text.lstrip(" \t").startswith(DOCSTART):
            lines.append(Line(number, text, DOCUMENT, []))
            continue
        if first is None:
            separator = TAB if TAB in text else " "
        cells = _cells(text, separator)
        first = first or (number, len(cells))
        if len(cells) != first[1]:
            raise ConllError(
                f"{path}:{number}: {_count(len(cells))}, but the first row (line {first[0]}) "
                f"has {first[1]}: {text!r}. Every row needs the same columns, separated by "
                f"{'a tab' if separator == TAB else 'blanks'} as there" + _remark(text, comment)
            )
        if not all(cells):
            raise ConllError(f"{path}:{number}: an empty column: {text!r}. Fill it in")
        lines.append(Line(number, text, ROW, cells))
    return lines, first[1] if first else 0


def _cells(text: str, separator: str) -> list[str]:
    cells = text.split(TAB) if separator == TAB else re.split("[ \t]+", text.strip(" \t"))
    return [cell.strip(" ") for cell in cells]


def _remark(text: str, comment: str | None) -> str:
    if comment is None and text.startswith(HASH):
        return ". If lines that begin with # are comments, say \"data.columns.comment='#'\""
    return ""


def _numbered(raw: Sequence[str]) -> bool:
    """Whether the first column counts the words, from 0 or 1 in each sentence or through the file.

    A column of numbers beside one of tags alone is a column of words.
    """
    separator: str | None = None
    expected: set[int] = {0, 1}
    seen, longest, tags = 0, 0, True
    for text in raw:
        if not text.strip(" \t") or text.startswith(DOCSTART):
            expected |= {0, 1}
            seen = 0
            continue
        if text.startswith(HASH):
            continue
        separator = separator or (TAB if TAB in text else " ")
        first, *others = _cells(text, separator)
        if not others:
            return False
        if NO_WORD.fullmatch(first):
            continue
        if not NUMBER.fullmatch(first) or int(first) not in expected:
            return False
        expected = {int(first) + 1}
        seen += 1
        longest = max(longest, seen)
        tags = tags and len(others) == 1 and is_tag(others[0])
    return longest > 1 and not tags


def _column(path: Path, name: str, column: int, width: int) -> int:
    """A column's number, counted from 0."""
    if not width or -width <= column <= width:
        return column - 1 if column > 0 else max(width + column, 0)
    raise ConllError(
        f"{path}: data.columns.{name}={column}, but its rows have {_count(width)}: name one of "
        f"these, or data.columns.{name}=null to let it be found"
    )


def _count(columns: int) -> str:
    return "1 column" if columns == 1 else f"{columns} columns"
