"""Targets with the longest first: nothing is lost, nothing past an end is there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opennmt_sd.seq2seq.sorted_targets import SortedTargets

T = 5


def ends(*lengths: int) -> Tensor:
    """``[B, T]``, True up to each length."""
    return torch.arange(T) < torch.tensor(lengths)[:, None]


def targets_of(there: Tensor | None, B: int) -> SortedTargets:
    return SortedTargets(B, T, there)


BATCHES = {
    "falling": ([5, 3, 1], [3, 2, 2, 1, 1]),
    "mixed": ([2, 5, 4, 5, 1], [5, 4, 3, 3, 2]),
    "one": ([5], [1] * 5),
    "alike": ([5, 5], [2] * 5),
    "all end early": ([2, 3], [2, 2, 1, 1, 1]),  # the last steps are the longest one's
    "nothing but padding": ([0, 5], [2, 1, 1, 1, 1]),  # the first step is everybody's
    "padding alone": ([0, 0], [2, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("lengths", [case[0] for case in BATCHES.values()], ids=BATCHES)
def test_sizes(lengths: list[int]) -> None:
    want = next(sizes for given, sizes in BATCHES.values() if given == lengths)
    targets = targets_of(ends(*lengths), len(lengths))
    assert targets.sizes.tolist() == want
    assert targets.sizes.dtype == torch.int64


@pytest.mark.parametrize("lengths", [case[0] for case in BATCHES.values()], ids=BATCHES)
def test_there_and_back(lengths: list[int]) -> None:
    targets, B = targets_of(ends(*lengths), len(lengths)), len(lengths)
    x = torch.arange(1.0, B * 5 * 2 + 1).view(B, 5, 2)
    rows = targets.pack(x)
    assert len(rows) == targets.sizes.sum()
    again = targets.unpack(rows)
    for b, n in enumerate(lengths):
        assert torch.equal(again[b, :n], x[b, :n])
    outside = again != x
    assert not again[outside].any()
    assert torch.equal(targets.unsort(targets.sort(x)), x)
    # A step's rows are those of the samples in order.
    assert torch.equal(targets.steps(rows)[0], targets.sort(x)[:, 0])


def test_padding_within_a_target_is_a_word() -> None:
    there = ends(5, 4)
    there[1, 1] = False
    assert targets_of(there, 2).sizes.tolist() == [2, 2, 2, 2, 1]


def test_where_nothing_is_said_all_steps_count() -> None:
    targets = targets_of(None, 2)
    assert targets.sizes.tolist() == [2] * 5
    x = torch.randn(2, 5, 3)
    assert torch.equal(targets.unpack(targets.pack(x)), x)


@pytest.mark.parametrize("lengths", [[2, 5, 4, 5, 1], [5, 5], [2, 3]], ids=str)
def test_whole_targets_have_the_same_order(lengths: list[int]) -> None:
    """As a GPU takes them: nothing is left out, and nothing is read back."""
    B = len(lengths)
    x = torch.arange(1.0, B * T * 2 + 1).view(B, T, 2)
    short, whole = (SortedTargets(B, T, ends(*lengths), whole=w) for w in (False, True))
    assert whole.sizes.tolist() == [B] * T
    assert torch.equal(whole.sort(x), short.sort(x))
    assert torch.equal(whole.pack(x), whole.sort(x).transpose(0, 1).flatten(0, 1))
    assert torch.equal(whole.unpack(whole.pack(x)), x)
    assert torch.equal(whole.unsort(whole.sort(x)), x)
    SortedTargets(B, T, ends(*lengths).to("meta"), whole=True)  # whose data nobody knows
