"""What comes from training data alone, and what GloVe adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opennmt_sd.tagger.corpora import Corpora, coverage
from opennmt_sd.tagger.model import Tagger, load_vectors
from opennmt_sd.tagger.vocabulary import UNKNOWN, UNKNOWN_CHAR, Vocabulary

VECTORS = {"peter": np.full(12, 1.0), "madrid": np.full(12, 2.0), "1996-08-22": np.full(12, 3.0)}
VECTORS["oslo"] = np.full(12, 4.0)


def test_words_chars_and_tags_are_those_of_training(write) -> None:
    train = write("a B-X\na O\nb O\n", "train")
    other = write("zz B-Y\n", "other")
    corpora = Corpora.files(train, other, other)
    vocabulary = corpora.vocabulary()
    assert vocabulary.words == ["a", "b"]
    assert vocabulary.chars == ["a", "b"]
    assert vocabulary.tags == ["O", "S-X"]
    assert vocabulary.unseen == []
    assert vocabulary.word_ids(["A", "zz", "b"]).tolist() == [1, UNKNOWN, 2]
    assert vocabulary.char_ids("az").tolist() == [2, UNKNOWN_CHAR]
    assert vocabulary.char_ids("").tolist() == [UNKNOWN_CHAR]
    with pytest.raises(KeyError):
        vocabulary.tag_ids(["S-Y"])


def test_vectors_make_unseen_words_known(corpora: Corpora, small) -> None:
    vocabulary = corpora.vocabulary(vectors=VECTORS)
    assert vocabulary.unseen == ["madrid", "oslo"]
    assert vocabulary.word_ids(["Madrid"]).tolist() == [vocabulary.trained]
    rare = {vocabulary.words[n - 1] for n in vocabulary.rare}
    assert "blackburn" in rare
    assert "peter" not in rare  # it has a vector
    model = Tagger(small(), vocabulary).eval()
    assert load_vectors(model.words, vocabulary, VECTORS) == 2
    ids = torch.from_numpy(vocabulary.word_ids(["Peter", "MADRID", "Berlin", "EU", "Oslo"]))
    rows = model.words(ids)
    assert rows[0].tolist() == [1.0] * 12
    assert rows[1].tolist() == [2.0] * 12
    assert rows[4].tolist() == [4.0] * 12
    assert torch.equal(rows[2], model.words.weight[UNKNOWN])
    assert abs(rows[3]).max() <= (3 / 12) ** 0.5
    assert coverage(corpora.train, vocabulary, VECTORS) == 2 / 16


def test_unseen_vectors_are_fixed_and_stored(corpora: Corpora, small) -> None:
    model = Tagger(small(), corpora.vocabulary(vectors=VECTORS))
    assert "words.unseen" in model.state_dict()
    assert "words.unseen" not in dict(model.named_parameters())
    assert model.words.weight.requires_grad
    assert not Tagger(small(fine_tune=False), corpora.vocabulary()).words.weight.requires_grad


def test_digits() -> None:
    vocabulary = Vocabulary.build([["In", "1996"]], [["O", "O"]], scheme="iob2", digits=True)
    assert vocabulary.words == ["in", "0000"]
    assert vocabulary.word_ids(["2024"]).tolist() == [2]
    exact = Vocabulary.build([["In"]], [["O"]], scheme="iob2", lower=False)
    assert exact.word_ids(["In", "in"]).tolist() == [1, UNKNOWN]
