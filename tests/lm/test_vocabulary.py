"""Words, characters, their numbers, and which of them are left out."""

from __future__ import annotations

import pytest

from opennmt_sd.lm import Vocabulary

COUNTS = {"the": 5, "cat": 3, "<eos>": 3, "sat": 2, "dog": 2, "emu": 1, "ran": 1}


def test_vocabulary() -> None:
    vocabulary = Vocabulary(["the", "<eos>", "cat"])
    assert (len(vocabulary), vocabulary.eos, vocabulary.unk) == (3, 1, None)
    assert "cat" in vocabulary
    assert "dog" not in vocabulary
    assert vocabulary == Vocabulary(list(vocabulary.words))
    assert vocabulary != Vocabulary(["<eos>", "the", "cat"])
    assert Vocabulary(["<eos>", "<unk>"]).unk == 1


def test_vocabulary_refuses() -> None:
    with pytest.raises(ValueError) as error:
        Vocabulary(["a", "<eos>", "a"])
    assert str(error.value) == "the vocabulary holds 'a' twice: every word needs one id"
    with pytest.raises(ValueError) as error:
        Vocabulary(["a"])
    assert str(error.value) == "the vocabulary lacks <eos>, which ends every line"
    with pytest.raises(ValueError) as error:
        Vocabulary(["<eos>"], "letter")
    assert str(error.value) == "level 'letter' is unknown: use one of word, char"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "the <eos> cat dog sat emu ran"),
        ({"unknown": True}, "the <eos> cat dog sat emu ran <unk>"),
        ({"min_count": 2}, "the <eos> cat <unk> dog sat"),  # <unk>: twice, and before d
        ({"min_count": 3}, "<unk> the <eos> cat"),  # 2 + 2 + 1 + 1
        ({"min_count": 99}, "<unk> <eos>"),  # <eos> stays
        ({"max_words": 7}, "the <eos> cat dog sat emu ran"),  # all fit
        ({"max_words": 6}, "the <eos> cat <unk> dog sat"),
        ({"max_words": 5}, "the <unk> <eos> cat dog"),  # 2 + 1 + 1
        ({"max_words": 3}, "<unk> the <eos>"),
        ({"max_words": 6, "min_count": 3}, "<unk> the <eos> cat"),
    ],
)
def test_rare_words_are_left_out(options: dict[str, int], words: str) -> None:
    assert " ".join(Vocabulary.of_counts(COUNTS, **options).words) == words


def test_an_unk_of_the_text_takes_the_rare_words_in() -> None:
    counts = {**COUNTS, "<unk>": 1}
    assert Vocabulary.of_counts(counts).words[-1] == "ran"
    assert Vocabulary.of_counts(counts, min_count=2).words == (
        "the", "<eos>", "<unk>", "cat", "dog", "sat",
    )  # fmt: skip


def test_a_text_and_back() -> None:
    words = Vocabulary(["a", "b", "<eos>"])
    assert words.split("a  b\tb ") == ["a", "b", "b"]
    assert words.text([0, 1, 2, 2, 1]) == "a b\n\nb"
    letters = Vocabulary(["a", "b", " ", "<eos>"], "char")
    assert letters.split("a b ") == ["a", " ", "b", " "]
    assert letters.text([0, 2, 1, 3, 3, 1]) == "a b\n\nb"
    assert (words.nearest("a"), letters.nearest("a")) == (["a"], [])
    assert repr(letters) == "Vocabulary of 4 characters"
    assert letters != Vocabulary(letters.words)
