"""Streams, segments, and batches of them."""

from __future__ import annotations

import statistics

import pytest
import torch

from opennmt_sd.lm import CorpusError
from opennmt_sd.lm.batches import Batches, random_segments, segments, streams


def test_streams_are_pieces_of_the_text_side_by_side() -> None:
    assert streams(torch.arange(11), 3).tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_ranks_share_the_streams() -> None:
    text = torch.arange(25)
    parts = [streams(text, 2, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat(parts, 1), streams(text, 6))


def test_a_text_that_is_too_short() -> None:
    streams(torch.arange(40), 20)
    with pytest.raises(CorpusError) as error:
        streams(torch.arange(39), 20, name="the training text")
    assert str(error.value) == (
        "the training text has 39 words with <eos>: too few for batch_size 20, which reads 20 "
        "streams of two words or more (40). Take a longer text, or batch_size 19 at most"
    )
    with pytest.raises(CorpusError) as error:
        streams(torch.arange(70), 20, 1, 2)
    assert str(error.value) == (
        "the text has 70 words with <eos>: too few for batch_size 20 in 2 processes, which reads "
        "40 streams of two words or more (80). Take a longer text, or batch_size 17 at most"
    )


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError) as error:
        streams(torch.arange(9), 0)
    assert str(error.value) == "batch_size must be at least 1, got 0"
    with pytest.raises(ValueError) as error:
        streams(torch.arange(9), 1, 2, 2)
    assert str(error.value) == "rank must be in [0, 2) (the processes), got 2"


@pytest.mark.parametrize("length", [2, 8, 9, 10, 11])
def test_segments_hold_every_target_once(length: int) -> None:
    columns = streams(torch.arange(2 * length), 2)
    batches = Batches(columns, segments(length, 3))
    assert torch.equal(torch.cat([b.targets for b in batches]), columns[1:])
    assert torch.equal(torch.cat([b.ids for b in batches]), columns[:-1])
    assert {len(b.ids) for b in batches[:-1]} <= {3}


def test_batches_is_a_sequence() -> None:
    batches = Batches(streams(torch.arange(40), 2), segments(20, 4))
    assert len(batches) == 5
    assert torch.equal(batches[-1].ids, batches[4].ids)
    assert len(batches[1:3]) == 2
    with pytest.raises(IndexError):
        batches[5]


def test_random_segments() -> None:
    length = 200_000
    plan = random_segments(length, 70, seed=3, epoch=0)
    assert [begin for begin, _ in plan[1:]] == [begin + T for begin, T in plan[:-1]]
    assert sum(T for _, T in plan) == length - 1
    short = [T for _, T in plan[:-1] if T < 53]
    usual = [T for _, T in plan[:-1] if T >= 53]
    assert 0.03 < len(short) / len(plan) < 0.07
    for lengths, mean in ((short, 35), (usual, 70)):
        # floor takes half a step; 5 standard errors on either side
        assert abs(statistics.mean(lengths) + 0.5 - mean) < 25 / len(lengths) ** 0.5
        assert 4 < statistics.stdev(lengths) < 6


def test_random_segments_are_those_of_seed_and_epoch() -> None:
    plans = [random_segments(2000, 70, seed, epoch)
             for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]  # fmt: skip
    assert plans[0] == plans[1]
    assert plans[0] != plans[2] != plans[3] != plans[0]


def test_no_random_segment_is_tiny() -> None:
    assert min(T for _, T in random_segments(5000, 6, 0, 0)[:-1]) == 5


def test_the_default_device_is_not_asked() -> None:
    expected = random_segments(2000, 70, 1, 0)
    with torch.device("meta"):
        assert random_segments(2000, 70, 1, 0) == expected
