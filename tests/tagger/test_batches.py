"""Batches: packed, of like length, the same at any time, and shared among ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from opennmt_sd.tagger.batches import Encoded, EpochBatches, in_order, plan
from opennmt_sd.tagger.chars import CharCNN
from opennmt_sd.tagger.vocabulary import UNKNOWN, Vocabulary

SENTENCES = [["b", "a"], ["c"], ["a", "b", "a", "dd"], ["a", "c"]]
TAGS = [["O", "X"], ["O"], ["O", "O", "X", "X"], ["X", "O"]]


@pytest.fixture
def encoded() -> Encoded:
    vocabulary = Vocabulary.build(SENTENCES, TAGS, scheme="iob2")
    return Encoded(vocabulary, SENTENCES, CharCNN(9).layout, TAGS)


def test_packed_as_torch_packs(encoded: Encoded) -> None:
    batch = encoded.batch([0, 1, 2, 3])
    assert batch.order == [2, 0, 3, 1]  # longest first, equal ones as they came
    for rows, sentences in ((batch.words, encoded.words), (batch.tags, encoded.tags)):
        packed = pack_sequence([torch.from_numpy(sentences[n]) for n in batch.order])
        assert torch.equal(rows, packed.data)
        assert torch.equal(batch.sizes, packed.batch_sizes)
    assert len(batch.words) == sum(encoded.lengths)  # nothing is padding
    _, _, lengths = batch.chars
    assert len(lengths) == 4  # a, b, c, dd: each once
    assert lengths[batch.spelling].sum() == sum(len(w) for s in SENTENCES for w in s)


def test_an_empty_sentence_is_refused() -> None:
    vocabulary = Vocabulary.build(SENTENCES, TAGS, scheme="iob2")
    with pytest.raises(ValueError) as error:
        Encoded(vocabulary, [["a"], []], CharCNN(9).layout)
    assert str(error.value) == "sentence 1 (from 0) has no word: leave it out"


def test_rare_words_are_unknown_now_and_then(encoded: Encoded) -> None:
    rare = encoded.rare.nonzero()[0].tolist()
    assert rare == [4]  # "dd" alone occurs once
    always = encoded.batch([2], (1.0, np.random.default_rng(0)))
    assert always.words[-1] == UNKNOWN
    assert torch.equal(always.words[:-1], encoded.batch([2]).words[:-1])
    half = [encoded.batch([2], (0.5, np.random.default_rng(n))).words[-1] for n in range(200)]
    assert 60 < sum(int(w) == UNKNOWN for w in half) < 140


def test_plan_covers_all_and_sorts_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 1_234).tolist()
    plans = plan(lengths, 10, seed=1, epoch=0)
    assert sorted(n for p in plans for n in p) == list(range(1_234))
    rows = sum(lengths[n] for p in plans for n in p)
    padded = sum(len(p) * max(lengths[n] for n in p) for p in plans)
    assert padded < 1.05 * rows
    in_one_bucket = plan(lengths[:500], 10, seed=1, epoch=0)
    first = [max(lengths[n] for n in p) for p in in_one_bucket]
    assert first != sorted(first)  # the batches are shuffled


def test_plan_depends_on_seed_and_epoch_alone() -> None:
    lengths = [5, 3, 4] * 20
    one = plan(lengths, 4, seed=1, epoch=2)
    assert one == plan(lengths, 4, seed=1, epoch=2)
    assert one != plan(lengths, 4, seed=1, epoch=3)
    assert one != plan(lengths, 4, seed=2, epoch=2)


def test_ranks_share_the_epoch() -> None:
    lengths = [1] * 70  # 7 batches
    whole = plan(lengths, 10, seed=1, epoch=0)
    parts = [plan(lengths, 10, seed=1, epoch=0, rank=r, ranks=2) for r in range(2)]
    assert [len(p) for p in parts] == [4, 4]
    assert sorted(map(tuple, [*whole, whole[0]])) == sorted(map(tuple, parts[0] + parts[1]))
    many = [plan(lengths, 10, seed=1, epoch=0, rank=r, ranks=20) for r in range(20)]
    assert [len(p) for p in many] == [1] * 20


def test_a_batch_is_the_same_at_any_time(encoded: Encoded) -> None:
    batches = EpochBatches(encoded, [[2], [0, 3]], (1, 0, 0), 0.5)
    assert len(batches) == 2
    again = [batches[1], batches[0], batches[-1]]
    assert torch.equal(again[1].words, batches[0].words)
    assert torch.equal(again[2].words, batches[1].words)
    with pytest.raises(IndexError):
        batches[2]


def test_another_epoch_draws_other_unknown_words(encoded: Encoded) -> None:
    drawn = [int(EpochBatches(encoded, [[2]], (1, e, 0), 0.5)[0].words[-1]) for e in range(40)]
    assert 8 < drawn.count(UNKNOWN) < 32


def test_in_order_takes_each_once_and_bounds_memory(encoded: Encoded) -> None:
    assert [b.order for b in in_order(encoded, 3)] == [[2, 0, 3], [1]]
    assert [b.order for b in in_order(encoded, 3, words=4)] == [[2], [0, 3], [1]]
    assert [b.order for b in in_order(encoded, 3, words=1)] == [[2], [0], [3], [1]]
