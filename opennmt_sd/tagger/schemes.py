"""How entities are written as tags: IOB1, IOB2 and BIOES, told apart and converted.

===========  =======================================================================
``"iob1"``   every word of an entity is ``I-X``; ``B-X`` only begins one that follows
             another of its type at once (some files begin one with it after ``O`` too)
``"iob2"``   the first word is ``B-X``, the others ``I-X``
``"bioes"``  ``B-X I-X .. E-X``, and ``S-X`` for a single word
===========  =======================================================================

Entities are read from tags by the rules of ``conlleval`` (the script of the CoNLL shared tasks),
which give a reading also to sequences that break their scheme.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

SCHEMES = ("iob1", "iob2", "bioes")

# An IOB1 file may begin an entity with B- after O: CoNLL-2003 does so twice in 23,499.
STRAY = 0.05


class Entity(NamedTuple):
    """Words ``start`` to ``end - 1`` of a sentence, of one type."""

    type: str
    start: int
    end: int


class SchemeError(ValueError):
    """Tags that fit no scheme; the text says where and why."""


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, as conlleval reads them, in order."""
    return [Entity(kind, start, end + 1) for kind, start, end in _reader()(list(tags))]


@functools.cache
def _reader() -> Callable[[list[str]], list[tuple[str, int, int]]]:
    from seqeval.metrics.sequence_labeling import (  # type: ignore[import-untyped]  # no types
        get_entities,
    )

    return get_entities


def encode(found: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """The tags of a sentence of ``length`` words with these entities (in order, disjoint).

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
        if scheme == "bioes":
            tags[end - 1] = f"E-{kind}" if end - start > 1 else f"S-{kind}"
        before = entity
    return tags


def convert(tags: Sequence[str], scheme: str) -> list[str]:
    """The same entities in another scheme."""
    return encode(entities(tags), len(tags), scheme)


def check_scheme(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise ValueError(f"tag scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}")
    return scheme


def detect(sentences: Iterable[tuple[int, Sequence[str]]], name: str) -> str | None:
    """The scheme of a file.

    Args:
        sentences: of each sentence the line of its first word, and its tags.
        name: of the file, for error texts.

    Returns:
        ``"iob1"``, ``"iob2"`` or ``"bioes"``; None where there is no entity at all.

    Raises:
        SchemeError: tags of more than one scheme; the text names two lines.
    """
    begun_b: list[int] = []  # lines where B- begins an entity after O or another type
    begun_i: list[int] = []  # lines where I- does
    closing: list[int] = []  # lines with E- or S-
    faults: list[tuple[int, str]] = []  # what BIOES forbids
    for first, tags in sentences:
        before = "O"
        for line, tag in enumerate([*tags, "O"], start=first):
            prefix, kind = tag[0], tag[2:]
            open_ = before[0] in "BI"  # in BIOES an entity that is begun must be closed
            joined = before != "O" and before[2:] == kind
            if tag != "O":
                if prefix in "ES":
                    closing.append(line)
                elif not joined:
                    (begun_b if prefix == "B" else begun_i).append(line)
            goes_on = prefix in "IE" and open_ and joined
            if open_ and not goes_on:
                faults.append((line - 1, before))
            elif prefix in "IE" and not goes_on:
                faults.append((line, tag))
            before = tag
    if closing:
        if faults:
            line, tag = faults[0]
            raise SchemeError(
                f"{name} mixes tag schemes: line {closing[0]} has E- or S-, so it would be BIOES, "
                f"but there line {line} ({tag}) cannot stand: an entity is B- I- .. E-, or S-. "
                "Write all of it in one scheme"
            )
        return "bioes"
    if not begun_i:
        return "iob2" if begun_b else None
    if len(begun_b) > STRAY * (len(begun_b) + len(begun_i)):
        raise SchemeError(
            f"{name} mixes tag schemes: {len(begun_b)} entities begin with B- (the first in line "
            f"{begun_b[0]}), as in IOB2, and {len(begun_i)} with I- (the first in line "
            f"{begun_i[0]}), as in IOB1. Write all of it in one scheme"
        )
    return "iob1"
