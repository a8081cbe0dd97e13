"""Schemes: told apart, converted, and read as conlleval reads them."""

from __future__ import annotations

import pytest

from opennmt_sd.tagger.schemes import (
    Entity,
    SchemeError,
    convert,
    detect,
    encode,
    entities,
    is_tag,
)

# The same entities in each scheme: two words, one word, and one that follows another of its type.
IOB1 = ["I-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-LOC", "I-PER"]
IOB2 = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC", "B-PER"]
BIOES = ["B-PER", "E-PER", "O", "S-LOC", "B-LOC", "E-LOC", "S-PER"]
BILOU = ["B-PER", "L-PER", "O", "U-LOC", "B-LOC", "L-LOC", "U-PER"]
FOUND = [Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("LOC", 4, 6), Entity("PER", 6, 7)]
ALL = {"iob1": IOB1, "iob2": IOB2, "bioes": BIOES, "bilou": BILOU}


@pytest.mark.parametrize("scheme", ALL)
def test_one_reading_in_every_scheme(scheme: str) -> None:
    assert entities(ALL[scheme]) == FOUND
    assert encode(FOUND, 7, scheme) == ALL[scheme]
    for other, tags in ALL.items():
        assert convert(ALL[scheme], other) == tags


@pytest.mark.parametrize("scheme", ALL)
def test_schemes_are_told_apart(scheme: str) -> None:
    assert detect([(range(1, 8), ALL[scheme])], "f") == scheme


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O I-PER", [("PER", 1, 2)]),  # I after O begins
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),  # another type begins
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER I-PER", [("PER", 0, 2)]),
        ("O E-PER", [("PER", 1, 2)]),
        ("O L-PER", [("PER", 1, 2)]),
        ("U-PER I-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("S-PER I-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-creative-work I-creative-work", [("creative-work", 0, 2)]),
        ("", []),
    ],
)
def test_reading_of_broken_sequences(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


def test_iob1_may_begin_with_b_after_o() -> None:
    tags = [["I-LOC", "O"] * 30, ["O", "B-MISC", "O"]]
    assert detect([(range(60), tags[0]), (range(62, 65), tags[1])], "f") == "iob1"
    assert entities(tags[1]) == [Entity("MISC", 1, 2)]


def test_no_entity_no_scheme() -> None:
    assert detect([([1, 2], ["O", "O"])], "f") is None
    assert detect([], "f") is None


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        (
            "B-PER O I-LOC",
            "f mixes tag schemes: 1 entities begin with B- (the first in line 11), as in IOB2, and "
            "1 with I- (the first in line 13), as in IOB1. Write all of it in one scheme",
        ),
        (
            "S-PER B-LOC O",
            "f mixes tag schemes: line 11 has E- or S-, so it would be BIOES, but there line 12 "
            "(B-LOC) cannot stand: an entity is B- I- .. E-, or S-. Write all of it in one scheme",
        ),
        (
            "U-PER B-LOC O",
            "f mixes tag schemes: line 11 has L- or U-, so it would be BILOU, but there line 12 "
            "(B-LOC) cannot stand: an entity is B- I- .. L-, or U-. Write all of it in one scheme",
        ),
        (
            "O U-PER S-LOC",
            "f mixes tag schemes: line 12 has L- or U-, so it would be BILOU, but line 13 has E- "
            "or S-, as in BIOES. Write all of it in one scheme",
        ),
        ("S-PER B-LOC", "line 12 (B-LOC) cannot stand"),
        ("S-PER I-LOC E-LOC", "line 12 (I-LOC) cannot stand"),
        ("B-PER E-LOC", "line 11 (B-PER) cannot stand"),
        ("O E-LOC", "line 12 (E-LOC) cannot stand"),
    ],
)
def test_mixed_schemes_are_refused(tags: str, text: str) -> None:
    with pytest.raises(SchemeError) as error:
        detect([(range(11, 15), tags.split())], "f")
    assert text in str(error.value)


def test_tags_are_printed_and_so_printable() -> None:
    for tag in ("O", "B-PER", "U-creative work", "I-سازمان", "S-<b>"):
        assert is_tag(tag), tag
    for text in ("", "o", "B", "B-", "B- x", "PER", "M-X", "B-\n", "I-\x1b[2J", "I-a\u2028b"):
        assert not is_tag(text), text


def test_unknown_scheme() -> None:
    with pytest.raises(ValueError) as error:
        encode([], 1, "bmes")
    assert str(error.value) == ("tag scheme 'bmes' is unknown: use one of iob1, iob2, bioes, bilou")
