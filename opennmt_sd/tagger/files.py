"""Tagging whole files: CoNLL columns or plain text in, CoNLL columns out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opennmt_sd.data.textfile import read_text
from opennmt_sd.tagger import conll, schemes
from opennmt_sd.tagger.columns import Columns, ConllError, Table
from opennmt_sd.tagger.reading import read_table
from opennmt_sd.tagger.scores import Scores, score
from opennmt_sd.tagger.trained import Trained

log = logging.getLogger(__name__)

KINDS = ("auto", "conll", "text")


@dataclass(frozen=True)
class Tagged:
    """What was read, and what the tagger found in it.

    Attributes:
        text: CoNLL columns, the predicted tag last.
        scores: against the tags of the file, where it has any.
        spaces: of each word, whether a blank follows it in the text; None for CoNLL columns.
    """

    sentences: list[list[str]]
    tags: list[list[str]]
    text: str
    scores: Scores | None
    spaces: list[list[bool]] | None = None


def is_text(path: Path, kind: str, columns: Columns | None = None) -> bool:
    """Return whether a file is read as plain text."""
    return kind == "text" or (
        kind == "auto" and path.suffix == ".txt" and not _is_tagged(path, columns)
    )


def tag(
    trained: Trained,
    path: Path,
    *,
    kind: str = "auto",
    columns: Columns | None = None,
    language: str = "en",
    batch_size: int = 64,
) -> Tagged:
    """Tag a file.

    Args:
        kind: ``"conll"``, ``"text"``, or ``"auto"`` (default): text for names that end in .txt,
            unless all of it is CoNLL columns with tags (some data sets are called so).
        columns: how columns are read, and the encoding of either kind; default: found out, UTF-8.
        language: whose spaCy tokenizer cuts a text.
        batch_size: sentences that are decoded together.

    A CoNLL file keeps its lines and gets one column more, in the tag scheme of its tags where it
    has some (so ``conlleval`` reads the result), else in IOB2.

    Raises:
        ConllError: a broken row, or no tag where ``columns`` says that one is.
        TextError: it cannot be opened, or is not text of this encoding.
        ValueError: an unknown kind. ImportError: a language that spaCy does not have.
    """
    if kind not in KINDS:
        raise ValueError(f"format {kind!r} is unknown: use one of {', '.join(KINDS)}")
    columns = columns or Columns()
    if is_text(path, kind, columns):
        return _tag_text(trained, path, columns.encoding, language, batch_size)
    table = read_table(path, columns)
    log.info("%s: %s", path, table)
    gold, scheme = _gold(table)
    words = [sentence.words for sentence in conll.sentences(table)]
    tags = _tags(trained, words, scheme, batch_size)
    text = "".join(line + "\n" for line in table.annotated(tags))
    scores = None if gold is None else score([schemes.convert(g, scheme) for g in gold], tags)
    return Tagged(words, tags, text, scores)


def _tag_text(
    trained: Trained, path: Path, encoding: str, language: str, batch_size: int
) -> Tagged:
    from opennmt_sd.tagger import spacy

    log.info("%s: read as plain text (predict.format=conll reads columns)", path)
    sentences, spaces = spacy.tokenize(read_text(path, encoding), language)
    tags = _tags(trained, sentences, "iob2", batch_size)
    text = "".join(
        "".join(f"{word}\t{tag}\n" for word, tag in zip(*pair)) + "\n"
        for pair in zip(sentences, tags)
    )
    return Tagged(sentences, tags, text, None, spaces)


def _tags(
    trained: Trained, sentences: Sequence[Sequence[str]], scheme: str, batch_size: int
) -> list[list[str]]:
    return [schemes.convert(tags, scheme) for tags in trained.tags(sentences, batch_size)]


def _is_tagged(path: Path, columns: Columns | None) -> bool:
    """Return whether all of it is rows, two at least, each with a tag."""
    try:
        table = read_table(path, columns)
    except ConllError:
        return False
    return sum(map(len, table.sentences())) > 1 and table.no_tag() is None


def _gold(table: Table) -> tuple[list[list[str]] | None, str]:
    """Return the tags of a file and their scheme; None where it holds none.

    Tags that fit no scheme are no obstacle: only words are needed, and conlleval reads any tags.
    """
    if table.tag is None or not table.width:
        return None, "iob2"
    if fault := table.no_tag():
        if table.asked.tag is not None:
            raise ConllError(fault)
        log.warning(f"{fault}. So there are no scores, and IOB2 comes out")
        return None, "iob2"
    gold = [conll.tags_of(table, rows) for rows in table.sentences()]
    try:
        return gold, conll.scheme_of(table) or "iob2"
    except ConllError as error:
        log.warning(f"{error}. Here they are read as conlleval does, and IOB2 comes out")
        return gold, "iob2"
