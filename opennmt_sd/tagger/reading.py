"""Reading a column file: which of its lines are words, and which columns hold words and tags.

A row is a word and any number of further columns, separated by tabs (if the first row has one) or
by blanks; an empty line ends a sentence. ``-DOCSTART-`` lines, whatever else is on them, begin a
document. Where the first column holds running numbers, as in CoNLL-U and GermEval, the words are in
the second, lines that begin with ``#`` are comments, and rows numbered ``3-4`` or ``3.1`` (words in
one piece, words left out) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from opennmt_sd.data.textfile import read_text
from opennmt_sd.tagger.columns import (
    ASIDE,
    DOCUMENT,
    EMPTY,
    ROW,
    TAB,
    Columns,
    ConllError,
    Line,
    Table,
    count,
)
from opennmt_sd.tagger.schemes import is_tag

DOCSTART = "-DOCSTART-"
HASH = "#"
NUMBER = re.compile(r"[0-9]{1,9}")
LABEL = re.compile(r"[A-Za-z]{0,2}[0-9]+([._:-]?[A-Za-z]{0,2}[0-9]+)*[.):]?")
FEW = 3  # rows that may all hold numbers for words: a line of a table, say
NO_WORD = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")  # CoNLL-U's multiword tokens, empty nodes


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
    if columns.word is None and not numbered:
        _check_words(path, [line.cells for line in lines if line.kind == ROW])
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
    """Return a line as what it is, where it only looks like a row."""
    if line.cells[word] == DOCSTART:
        return line._replace(kind=DOCUMENT, cells=[])
    if numbered and word and NO_WORD.fullmatch(line.cells[0]):
        return line._replace(kind=ASIDE)
    return line


def _lines(path: Path, raw: Iterable[str], comment: str | None) -> tuple[list[Line], int]:
    """Return all lines, and how many columns the rows have."""
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
                f"{path}:{number}: {count(len(cells))}, but the first row (line {first[0]}) "
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
    """Return whether the first column counts words, from 0 or 1 in a sentence or through the file.

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


def _check_words(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Refuse to take for words what numbers them, by a count that :func:`_numbered` cannot follow:
    with gaps, of another file, over several sentences, ``1.``, ``2-1``, ``T1``.

    Raises:
        ConllError: nothing but such numbers in the first column, and another one may hold words.
    """
    if len(rows) < FEW or not all(LABEL.fullmatch(row[0]) for row in rows):
        return
    if len(rows[0]) < 2 or (len(rows[0]) == 2 and all(is_tag(row[1]) for row in rows)):
        return
    first = ", ".join(repr(row[0]) for row in rows[:3])
    raise ConllError(
        f"{path}: column 1 holds nothing but numbers ({first}, ..): if they are not the words, "
        "name the column of these, data.columns.word=2 or another; if they are, data.columns.word=1"
    )


def _column(path: Path, name: str, column: int, width: int) -> int:
    """Return a column's number, counted from 0."""
    if not width or -width <= column <= width:
        return column - 1 if column > 0 else max(width + column, 0)
    raise ConllError(
        f"{path}: data.columns.{name}={column}, but its rows have {count(width)}: name one of "
        f"these, or data.columns.{name}=null to let it be found"
    )
