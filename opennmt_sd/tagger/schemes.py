"""How entities are written as tags: IOB1, IOB2, BIOES and BILOU, told apart and converted.

===========  =======================================================================
``"iob1"``   every word of an entity is ``I-X``; ``B-X`` only begins one that follows
             another of its type at once (some files begin one with it after ``O`` too)
``"iob2"``   the first word is ``B-X``, the others ``I-X``
``"bioes"``  ``B-X I-X .. E-X``, and ``S-X`` for a single word
``"bilou"``  the same with other letters: ``B-X I-X .. L-X``, and ``U-X``
===========  =======================================================================

IO (every word of an entity is ``I-X``, nothing else) is IOB1 without two neighbours of one type.

Entities are read from tags by the rules of ``conlleval`` (the script of the CoNLL shared tasks),
which give a reading also to sequences that break their scheme.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from opennmt_sd.extras import extra

SCHEMES = ("iob1", "iob2", "bioes", "bilou")
CLOSING = {"bioes": ("E", "S"), "bilou": ("L", "U")}  # a last word, and an only one
TAG = re.compile(r"O|[BIESLU]-\S.*")

# An IOB1 file may begin an entity with B- after O: CoNLL-2003 does so twice in 23,499.
STRAY = 0.05


class Entity(NamedTuple):
    """Words ``start`` to ``end - 1`` of a sentence, of one type."""

    type: str
    start: int
    end: int


class SchemeError(ValueError):
    """Tags that fit no scheme; the text says where and why."""


@functools.lru_cache(4096)
def is_tag(text: str) -> bool:
    """Return whether this is a tag: O, or B-, I-, E-, S-, L- or U- and a type.

    Control characters, line ends and halves of characters make no type: tags are printed.
    """
    return bool(TAG.fullmatch(text)) and not any(
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text
    )


def canonical(tags: Iterable[str]) -> list[str]:
    """Return the same tags with BIOES's letters for BILOU's, as seqeval knows them."""
    return [LETTERS.get(tag[0], tag[0]) + tag[1:] for tag in tags]


LETTERS = dict(zip(CLOSING["bilou"], CLOSING["bioes"]))


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sentence, as conlleval reads them, in order."""
    return [Entity(kind, start, end + 1) for kind, start, end in _reader()(canonical(tags))]


@functools.cache
def _reader() -> Callable[[list[str]], list[tuple[str, int, int]]]:
    with extra("tagger"):
        from seqeval.metrics.sequence_labeling import (  # type: ignore[import-untyped]  # no types
            get_entities,
        )

    return get_entities


def encode(found: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """Return the tags of a sentence of ``length`` words with these entities (in order, disjoint).

    Raises:
        ValueError: an unknown scheme.
    """
    check_scheme(scheme)
    tags = ["O"] * length
    before = Entity("", -1, -1)
    for entity in found:
        kind, start, end = entity
        tags[start:end] = [f"I-{kind}"] * (end - start)
        if scheme != "iob1" or (before.end == start and before.type == kind):
            tags[start] = f"B-{kind}"
        if scheme in CLOSING:
            last, single = CLOSING[scheme]
            tags[end - 1] = f"{last}-{kind}" if end - start > 1 else f"{single}-{kind}"
        before = entity
    return tags


def convert(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the same entities in another scheme."""
    return encode(entities(tags), len(tags), scheme)


def check_scheme(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise ValueError(f"tag scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}")
    return scheme


def detect(sentences: Iterable[tuple[Sequence[int], Sequence[str]]], name: str) -> str | None:
    """Tell the scheme of a file.

    Args:
        sentences: of each sentence the lines of its words, and their tags.
        name: of the file, for error texts.

    Returns:
        One of :data:`SCHEMES`; None where there is no entity at all.

    Raises:
        SchemeError: tags of more than one scheme; the text names two lines.
    """
    seen = _Seen()
    for lines, tags in sentences:
        seen.add(lines, tags)
    if seen.closing:
        return seen.closed(name)
    if not seen.begun_i:
        return "iob2" if seen.begun_b else None
    if len(seen.begun_b) > STRAY * (len(seen.begun_b) + len(seen.begun_i)):
        raise SchemeError(
            f"{name} mixes tag schemes: {len(seen.begun_b)} entities begin with B- (the first in "
            f"line {seen.begun_b[0]}), as in IOB2, and {len(seen.begun_i)} with I- (the first in "
            f"line {seen.begun_i[0]}), as in IOB1. Write all of it in one scheme"
        )
    return "iob1"


class _Seen:
    """What tags were seen, and in which lines.

    Attributes:
        begun_b, begun_i: lines where B- or I- begins an entity after O or another type.
        closing: of each scheme with closing letters, the first line that has one.
        faults: lines and tags that such a scheme forbids.
    """

    def __init__(self) -> None:
        self.begun_b: list[int] = []
        self.begun_i: list[int] = []
        self.closing: dict[str, int] = {}
        self.faults: list[tuple[int, str]] = []

    def add(self, lines: Sequence[int], tags: Sequence[str]) -> None:
        """Look at one sentence."""
        above, before = 0, "O"
        for line, tag in zip([*lines, 0], [*tags, "O"]):
            prefix = LETTERS.get(tag[0], tag[0])
            open_ = before[0] in "BI"  # where words are closed, an entity that is begun must be
            joined = before != "O" and before[2:] == tag[2:]
            if tag[0] in "ESLU":
                scheme = "bioes" if tag[0] in CLOSING["bioes"] else "bilou"
                self.closing.setdefault(scheme, line)
            elif tag != "O" and not joined:
                (self.begun_b if prefix == "B" else self.begun_i).append(line)
            goes_on = prefix in "IE" and open_ and joined
            if open_ and not goes_on:
                self.faults.append((above, before))
            elif prefix in "IE" and not goes_on:
                self.faults.append((line, tag))
            above, before = line, tag

    def closed(self, name: str) -> str:
        """Name the scheme of a file with closing letters, all of which must keep to it."""
        scheme, line = min(self.closing.items(), key=lambda item: item[1])
        last, single = CLOSING[scheme]
        would = f"line {line} has {last}- or {single}-, so it would be {scheme.upper()}"
        for other in self.closing.keys() - {scheme}:
            last, single = CLOSING[other]
            raise SchemeError(
                f"{name} mixes tag schemes: {would}, but line {self.closing[other]} has {last}- or "
                f"{single}-, as in {other.upper()}. Write all of it in one scheme"
            )
        if self.faults:
            broken, tag = self.faults[0]
            raise SchemeError(
                f"{name} mixes tag schemes: {would}, but there line {broken} ({tag}) cannot stand: "
                f"an entity is B- I- .. {last}-, or {single}-. Write all of it in one scheme"
            )
        return scheme
