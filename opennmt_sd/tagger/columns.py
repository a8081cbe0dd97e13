"""Column files: in which columns words and tags stand, and what stands there.

:func:`opennmt_sd.tagger.reading.read_table` reads one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from opennmt_sd.data.textfile import TextError, check_encoding
from opennmt_sd.tagger.schemes import is_tag

TAB = "\t"
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
        """Say where words and tags are, for a log."""
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
        """Count the lines that begin a document."""
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
                f"{self.path}:{first.number}: {count(self.width)}: {first.text!r}. Training and "
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
        """Return further columns that hold tags, counted from 1."""
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


def count(columns: int) -> str:
    """Return a number of columns in words."""
    return "1 column" if columns == 1 else f"{columns} columns"
