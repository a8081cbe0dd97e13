"""``StructuredDropout``: a draw and its application, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from opennmt_sd import DropoutPattern, StructuredDropout

T, B, D = 5, 3, 4
CASES = {"I": ("random", "random"), "II": ("random", "fixed"),
         "III": ("structured", "random"), "IV": ("structured", "fixed")}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)


@every_case
@pytest.mark.parametrize("layout", ["time first", "batch first", "one step", "packed"])
def test_drops(layout: str, case: str, drawn) -> None:
    layer = StructuredDropout(
        DropoutPattern(0.5, *CASES[case]), batch_first=layout == "batch first"
    )
    shape = {"batch first": (B, T, D), "one step": (B, D)}.get(layout, (T, B, D))
    x = torch.randn(shape)
    if layout == "packed":
        packed = pack_padded_sequence(x, torch.tensor([2, 5, 1]), enforce_sorted=False)
        y = layer(packed)
        assert isinstance(y, PackedSequence)
        where = [(t, b) for t, n in enumerate(packed.batch_sizes.tolist()) for b in range(n)]
        mask = drawn[0.5][0].mask().expand(T, B, D)
        assert torch.equal(y.data, packed.data * torch.stack([mask[tb] for tb in where]) * 2.0)
        assert torch.equal(y.unsorted_indices, packed.unsorted_indices)
        return
    y = layer(x)
    (keep,) = drawn[0.5]
    if layout == "one step":
        assert torch.equal(y, x * keep.mask()[0] * 2.0)
    elif layout == "batch first":
        assert keep.steps == (1 if CASES[case][1] == "fixed" else T)
        assert torch.equal(y, x * keep.mask().expand(T, B, D).transpose(0, 1) * 2.0)
    else:
        assert torch.equal(y, x * keep.mask() * 2.0)


@pytest.mark.parametrize("why", ["evaluation", "nothing to drop"])
def test_does_nothing(why: str, drawn) -> None:
    layer = StructuredDropout(0.5 if why == "evaluation" else 0.0).train(why != "evaluation")
    x: Any = torch.randn(T, B, D)
    assert layer(x) is x
    assert not drawn


def test_the_default_is_case_three_at_one_half() -> None:
    assert StructuredDropout().dropout == DropoutPattern(0.5, "structured", "random")


def test_each_call_draws_anew(drawn) -> None:
    layer = StructuredDropout(DropoutPattern(0.5, time="fixed"))
    x = torch.ones(T, B, 100)
    assert not torch.equal(layer(x), layer(x))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^input must be \[T, B, D\] \(time first; .* got \[4\]$"):
        StructuredDropout()(torch.ones(4))


def test_has_no_state() -> None:
    assert StructuredDropout().state_dict() == {}
