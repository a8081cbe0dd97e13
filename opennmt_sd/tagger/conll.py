"""Sentences with tags, from CoNLL column files (:mod:`opennmt_sd.tagger.columns`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opennmt_sd.tagger import schemes
from opennmt_sd.tagger.columns import Columns, ConllError, Line, Table
from opennmt_sd.tagger.reading import read_table

__all__ = [
    "Columns",
    "ConllError",
    "Corpus",
    "Sentence",
    "read",
    "scheme_of",
    "sentences",
    "tags_of",
]

log = logging.getLogger(__name__)


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
        """Count its words."""
        return sum(len(sentence.words) for sentence in self.sentences)

    def in_scheme(self, scheme: str) -> list[list[str]]:
        """Give the tags of every sentence in this scheme."""
        return [schemes.convert(sentence.tags, scheme) for sentence in self.sentences]


def read(path: Path | str, columns: Columns | None = None) -> Corpus:
    """Read a file with tags, and say in the log what was found.

    Args:
        columns: how; default: all is found out.

    Raises:
        ConllError: no sentence, a broken row, a row without a tag, or tags that fit no scheme.
        TextError: it cannot be opened, or is not text of this encoding.
    """
    table = read_table(path, columns)
    if fault := table.no_tag():
        raise ConllError(fault)
    corpus = Corpus(str(table.path), sentences(table), scheme_of(table), table.documents)
    if not corpus.sentences:
        raise ConllError(f"{path} holds no sentence: expected a word and its tag on each line")
    count = sum(len(schemes.entities(s.tags)) for s in corpus.sentences)
    log.info(
        "%s: %s sentences, %s words, %s entities, %s; %s",
        path, f"{len(corpus.sentences):,}", f"{corpus.words:,}", f"{count:,}",
        _scheme(corpus), table,
    )  # fmt: skip
    _tell_of_equal_words(table)
    return corpus


def sentences(table: Table) -> list[Sentence]:
    """Give the sentences of a table; without tags where it has no column of them."""
    return [
        Sentence([row.cells[table.word] for row in rows], tags_of(table, rows), rows[0].number)
        for rows in table.sentences()
    ]


def tags_of(table: Table, rows: Sequence[Line]) -> list[str]:
    """Give what stands in the tag column."""
    return [] if table.tag is None else [row.cells[table.tag] for row in rows]


def scheme_of(table: Table) -> str | None:
    """Tell the scheme of a table's tags; None where they are all O.

    Raises:
        ConllError: they fit no scheme.
    """
    rows = (([row.number for row in rows], tags_of(table, rows)) for rows in table.sentences())
    try:
        return schemes.detect(rows, str(table.path))
    except schemes.SchemeError as error:
        raise ConllError(str(error)) from None


def _scheme(corpus: Corpus) -> str:
    if corpus.scheme is None:
        return "so no tag scheme"
    is_io = corpus.scheme == "iob1" and not any(
        tag[0] == "B" for sentence in corpus.sentences for tag in sentence.tags
    )
    return f"scheme {corpus.scheme.upper()}" + (" (or IO: it has no B-)" if is_io else "")


def _tell_of_equal_words(table: Table) -> None:
    """Warn where the words of every sentence are all the same: the name of a document, say."""
    several = [rows for rows in table.sentences() if len(rows) > 1]
    if len(several) > 1 and all(
        len({row.cells[table.word] for row in rows}) == 1 for rows in several
    ):
        log.warning(
            "%s: within every sentence column %d holds one and the same (%r): if these are not its "
            "words, name their column, data.columns.word=..",
            table.path, table.word + 1, several[0][0].cells[table.word],
        )  # fmt: skip
