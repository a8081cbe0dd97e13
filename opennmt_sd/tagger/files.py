"""Tagging whole files: CoNLL columns or plain text in, CoNLL columns out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opennmt_sd.tagger import conll, schemes
from opennmt_sd.tagger.scores import Scores, score
from opennmt_sd.tagger.trained import Trained

log = logging.getLogger(__name__)

KINDS = ("auto", "conll", "text")


@dataclass(frozen=True)
class Tagged:
    """What was read and said.

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


def is_text(path: Path, kind: str) -> bool:
    """Whether a file is read as plain text."""
    return kind == "text" or (kind == "auto" and path.suffix == ".txt" and not _is_tagged(path))


def tag(
    trained: Trained, path: Path, *, kind: str = "auto", language: str = "en", batch_size: int = 64
) -> Tagged:
    """Tag a file.

    Args:
        kind: ``"conll"``, ``"text"``, or ``"auto"`` (default): text for names that end in .txt,
            unless all of it is CoNLL columns with tags (some data sets are called so).
        language: whose spaCy tokenizer cuts a text.
        batch_size: sentences that are decoded together.

    A CoNLL file keeps its lines and gets one column more, in the tag scheme of its last column
    where that holds tags (so ``conlleval`` reads the result), else in IOB2.

    Raises:
        ConllError: a broken row, or not UTF-8. ValueError: an unknown kind. ImportError: a
            language that spaCy does not have.
    """
    if kind not in KINDS:
        raise ValueError(f"format {kind!r} is unknown: use one of {', '.join(KINDS)}")
    if is_text(path, kind):
        from opennmt_sd.tagger import spacy

        sentences, spaces = spacy.tokenize(conll.read_text(path), language)
        tags = _tags(trained, sentences, "iob2", batch_size)
        text = "".join(
            "".join(f"{word}\t{tag}\n" for word, tag in zip(*pair)) + "\n"
            for pair in zip(sentences, tags)
        )
        return Tagged(sentences, tags, text, None, spaces)
    gold, scheme = _gold(path)
    sentences = [s.words for s in conll.read_rows(path, tagged=False)[0]]
    tags = _tags(trained, sentences, scheme or "iob2", batch_size)
    text = "".join(line + "\n" for line in conll.annotate(path, tags))
    scores = None if gold is None else score([schemes.convert(g, scheme) for g in gold], tags)
    return Tagged(sentences, tags, text, scores)


def _tags(
    trained: Trained, sentences: Sequence[Sequence[str]], scheme: str, batch_size: int
) -> list[list[str]]:
    return [schemes.convert(tags, scheme) for tags in trained.tags(sentences, batch_size)]


def _is_tagged(path: Path) -> bool:
    """Whether all of it is rows, two at least, with a tag in the last column."""
    try:
        return _tagged_rows(path) > 1
    except conll.ConllError:
        return False


def _tagged_rows(path: Path) -> int:
    """How many rows there are, all with a tag in the last column; 0 where one has none."""
    count = 0
    for _, _, cells in conll.rows(path):
        if cells and cells != [conll.DOCSTART]:
            if len(cells) < 2 or not conll.TAG.fullmatch(cells[-1]):
                return 0
            count += 1
    return count


def _gold(path: Path) -> tuple[list[list[str]] | None, str]:
    """The tags of the last column and their scheme; None where it holds none.

    Tags that fit no scheme are no obstacle: only words are needed, and conlleval reads any tags.
    """
    if not _tagged_rows(path):
        return None, "iob2"
    try:
        corpus = conll.read(path)
    except conll.ConllError as error:
        log.warning(f"{error}. Here they are read as conlleval does, and IOB2 comes out")
        return [s.tags for s in conll.read_rows(path, tagged=True)[0]], "iob2"
    return [s.tags for s in corpus.sentences], corpus.scheme or "iob2"


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; into a pipe or a device, as it is."""
    if path.exists() and not path.is_file():  # its name must not be given to a file
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
