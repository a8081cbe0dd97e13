"""Scores, against values worked out by hand from conlleval's rules.

conlleval counts three things: entities found, entities of the gold standard, and those correct in
type and both ends; precision, recall and F1 = 2PR / (P + R) follow, printed to two decimals. An
entity begins at B, at I after O, and where the type changes; it ends before any such beginning and
at O; a sentence's end ends it.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from opennmt_sd.tagger.schemes import entities
from opennmt_sd.tagger.scores import errors, score


def scored(gold: str, predicted: str) -> tuple[str, str, str]:
    """Sentences are separated by ``|``."""
    both = [[s.split() for s in text.split("|")] for text in (gold, predicted)]
    whole = score(*both).all
    return f"{whole.precision:.2f}", f"{whole.recall:.2f}", f"{whole.f1:.2f}"


@pytest.mark.parametrize(
    ("gold", "predicted", "result"),
    [
        # I after O begins an entity: found 1, gold 1, correct 1. Strict scoring would see none.
        ("B-PER I-PER O", "I-PER I-PER O", ("100.00", "100.00", "100.00")),
        # The type changes within: found PER 0-0 and LOC 1-1, none of them correct.
        ("B-PER I-PER O", "B-PER I-LOC O", ("0.00", "0.00", "0.00")),
        # found PER 0-0, LOC 1-2; gold PER 0-0, LOC 1-2: I-LOC after PER begins one.
        ("B-PER B-LOC I-LOC", "I-PER I-LOC I-LOC", ("100.00", "100.00", "100.00")),
        # B in the middle cuts: found 0-0 and 1-1, gold 0-1. Correct 0.
        ("B-LOC I-LOC O", "B-LOC B-LOC O", ("0.00", "0.00", "0.00")),
        # found 2 (0-0; 2-2), gold 1 (0-0), correct 1: P 1/2, R 1/1, F1 2/3.
        ("B-LOC O O", "B-LOC O I-LOC", ("50.00", "100.00", "66.67")),
        # found 1, gold 3, correct 1: P 1, R 1/3, F1 1/2.
        ("B-A O B-B O B-C", "B-A O O O O", ("100.00", "33.33", "50.00")),
        # A sentence's end ends an entity: I at a sentence's start begins one. gold 2, found 2.
        ("O B-A | B-A O", "O I-A | I-A O", ("100.00", "100.00", "100.00")),
        # The right beginning does not count: found 0-1, gold 0-2. Then one correct: 1 of 2 each.
        ("B-A I-A I-A O B-B", "B-A I-A O O B-B", ("50.00", "50.00", "50.00")),
        # An adjacent gold entity that the prediction joins: gold 0-0, 1-1; found 0-1. Correct 0.
        ("B-A B-A O B-B", "B-A I-A O B-B", ("50.00", "33.33", "40.00")),
        ("O O", "O O", ("0.00", "0.00", "0.00")),
        ("O O", "O B-A", ("0.00", "0.00", "0.00")),
        # A type with a hyphen; 2 gold, 3 found, 1 correct: P 33.33, R 50, F1 40.
        (
            "B-creative-work I-creative-work O B-person O O",
            "I-creative-work I-creative-work O B-product O B-person",
            ("33.33", "50.00", "40.00"),
        ),
    ],
)
def test_traps(gold: str, predicted: str, result: tuple[str, str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scored(gold, predicted) == result


def test_per_type_and_accuracy() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC", "O"], ["B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG", "O"], ["B-LOC"]]
    scores = score(gold, predicted)
    assert {k: (s.precision, s.recall, s.support) for k, s in scores.types.items()} == {
        "PER": (100, 100, 1),
        "LOC": (100, 50, 2),
        "ORG": (0, 0, 0),
    }
    assert round(scores.types["LOC"].f1, 2) == 66.67
    assert round(scores.accuracy, 2) == 83.33
    assert scores.all.support == 3
    assert list(scores.types) == ["LOC", "ORG", "PER"]
    flat = scores.flat()
    assert flat["f1"] == scores.all.f1
    assert flat["f1/LOC"] == scores.types["LOC"].f1
    assert flat["errors/wrong type"] == 1
    assert str(scores).splitlines()[0] == "     precision  recall     F1  entities"
    assert str(scores).splitlines()[1] == "LOC     100.00   50.00  66.67         2"


@pytest.mark.parametrize(
    ("gold", "predicted", "counts"),
    [
        ("B-A O O", "O O O", {"missed": 1}),
        ("O O O", "O B-A O", {"spurious": 1}),
        ("B-A O O", "O B-A O", {"missed": 1, "spurious": 1}),  # side by side is no overlap
        ("O B-A O", "B-A O O", {"missed": 1, "spurious": 1}),
        ("B-A I-A O", "B-B I-B O", {"wrong type": 1}),
        ("B-A I-A O", "B-A O O", {"wrong boundary": 1}),
        ("B-A I-A O", "O B-B I-B", {"wrong both": 1}),
        ("B-A I-A I-A", "B-A B-B I-B", {"wrong boundary": 1}),  # once, though two overlap it
        ("B-A B-A O", "B-A I-A O", {"wrong boundary": 2}),
        ("B-A I-A O", "B-A I-A O", {}),
    ],
)
def test_errors(gold: str, predicted: str, counts: dict[str, int]) -> None:
    found = errors([entities(gold.split())], [entities(predicted.split())])
    assert {kind: count for kind, count in found.items() if count} == counts


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="1 predicted sentences for 2 gold ones"):
        score([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 2: 1 predicted tags for 2 words"):
        score([["O"], ["O", "O"]], [["O"], ["O"]])


def test_against_a_count_of_its_own() -> None:
    """Random sequences, counted once more by conlleval's algorithm, written out here."""
    import random

    draw = random.Random(3)
    tags = ["O", "O", "B-X", "I-X", "B-Y", "I-Y"]
    gold = [[draw.choice(tags) for _ in range(draw.randint(1, 9))] for _ in range(200)]
    predicted = [[draw.choice([t, *tags]) for t in row] for row in gold]
    correct = found = there = 0
    for g, p in zip(gold, predicted):
        a, b = _chunks(g), _chunks(p)
        correct, there, found = correct + len(a & b), there + len(a), found + len(b)
    whole = score(gold, predicted).all
    P, R = correct / found, correct / there
    assert correct > 50
    assert (whole.precision, whole.recall) == pytest.approx((100 * P, 100 * R))
    assert whole.f1 == pytest.approx(100 * 2 * P * R / (P + R))


def _chunks(tags: list[str]) -> set[tuple[str, int, int]]:
    chunks, start, before = set(), None, ("O", "")
    for n, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if start is not None and (prefix in "OB" or kind != before[1]):
            chunks.add((before[1], start, n))
            start = None
        if prefix == "B" or (prefix == "I" and (before[0] == "O" or kind != before[1])):
            start = n
        before = prefix, kind
    return chunks


def test_it_is_seqevals_default_mode() -> None:
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    gold, broken = [["B-PER", "I-PER"]], [["I-PER", "I-PER"]]
    assert score(gold, broken).all.f1 == 100 * f1_score(gold, broken) == 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert f1_score(gold, broken, mode="strict", scheme=IOB2) == 0  # the mode not taken


CONLL = Path(os.environ["OPENNMT_SD_CORPORA"]) / "conll2003"


@pytest.mark.skipif(not CONLL.exists(), reason=f"{CONLL} is not there")
def test_conll_2003_against_itself() -> None:
    from opennmt_sd.tagger.conll import read

    corpus = read(CONLL / "eng.testb")
    scores = score(corpus.in_scheme("iob1"), corpus.in_scheme("iob1"))
    assert (scores.all.f1, scores.all.support) == (100, 5_648)
    support = {kind: s.support for kind, s in scores.types.items()}
    assert support == {"LOC": 1_668, "MISC": 702, "ORG": 1_661, "PER": 1_617}  # as published
