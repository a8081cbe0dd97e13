"""What a draw keeps: sets and masks, cut, joined and applied."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import DropoutPattern, KeepMask, KeepSets

CASES = {
    "I": DropoutPattern(0.5, "random", "random"),
    "II": DropoutPattern(0.5, "random", "fixed"),
    "III": DropoutPattern(0.5, "structured", "random"),
    "IV": DropoutPattern(0.5, "structured", "fixed"),
}
every_case = pytest.mark.parametrize("pattern", CASES.values(), ids=CASES.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def int32(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def sets(idx: list[list[int]], count: list[int], scale: float = 2.0) -> KeepSets:
    return KeepSets(int32(*idx), int32(*count), scale)


# ---------------------------------------------------------------- keep sets


def test_sets_hold_the_kept_units_in_order() -> None:
    keep = CASES["III"].draw(20, 1, 33, seeded())
    assert isinstance(keep, KeepSets)
    assert keep.idx.shape == (20, 33), "shapes must not depend on the draw"
    assert (keep.idx.dtype, keep.count.dtype) == (torch.int32, torch.int32)
    for t in range(20):
        units = keep.mask()[t, 0].nonzero().flatten()
        assert torch.equal(keep.kept(t).long(), units), t
        assert keep.counts[t] == len(units), t


def test_a_fixed_set_serves_every_step() -> None:
    keep = CASES["IV"].draw(20, 1, 33, seeded())
    assert isinstance(keep, KeepSets)
    assert torch.equal(keep.kept(0), keep.kept(19))


def test_from_mask_and_back() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    keep = KeepSets.from_mask(mask, 2.0)
    assert keep.counts == [2, 0, 3]
    assert keep.kept(0).tolist() == [0, 2]
    assert torch.equal(keep.mask(), mask[:, None])


def test_padding_is_never_read() -> None:
    keep = sets([[1, 3, 99, -7, 1], [0, 0, 0, 0, 0]], [2, 1])
    assert keep.kept(0).tolist() == [1, 3]
    assert keep.kept(1).tolist() == [0]
    assert keep.mask()[:, 0].tolist() == [
        [False, True, False, True, False],
        [True, False, False, False, False],
    ]


ASCENDING = "the kept units of a step must be ascending, without repeats"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: KeepSets(torch.zeros(1, 3, dtype=torch.int64), int32(1), 1.0),
            TypeError,
            "keep sets need int32 idx and count, got torch.int64 and torch.int32",
        ),
        (
            lambda: KeepSets(int32([0, 1]), torch.ones(1), 1.0),
            TypeError,
            "keep sets need int32 idx and count, got torch.int32 and torch.float32",
        ),
        (
            lambda: KeepSets(int32(0, 1), int32(1), 1.0),
            ValueError,
            "keep sets need idx [S, D] and count [S], got [2] and [1]",
        ),
        (
            lambda: sets([[0, 1], [0, 1]], [1]),
            ValueError,
            "keep sets need idx [S, D] and count [S], got [2, 2] and [1]",
        ),
        (
            lambda: sets([[0, 1, 2]], [4]),
            ValueError,
            "keep counts must lie in [0, 3] (the width), got 4 to 4",
        ),
        (
            lambda: sets([[0, 1], [0, 1]], [-1, 1]),
            ValueError,
            "keep counts must lie in [0, 2] (the width), got -1 to 1",
        ),
        (
            lambda: sets([[0, 3, 0]], [2]),
            ValueError,
            "kept unit 3 is out of range: a width of 3 has units 0 to 2",
        ),
        (
            lambda: sets([[0, 1, 2], [-1, 0, 1]], [1, 3]),
            ValueError,
            "kept unit -1 is out of range: a width of 3 has units 0 to 2",
        ),
        (lambda: sets([[2, 0, 1]], [2]), ValueError, ASCENDING),
        (lambda: sets([[0, 1, 1]], [3]), ValueError, ASCENDING),
    ],
    ids=[
        "idx of int64",
        "count of float32",
        "idx without steps",
        "fewer counts than steps",
        "count above the width",
        "count below zero",
        "unit beyond the width",
        "unit below zero",
        "units in disorder",
        "a unit twice",
    ],
)
def test_hand_made_sets_are_checked(make: partial, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (torch.ones(1, 2, 3), TypeError, "a keep mask needs dtype torch.bool, got torch.float32"),
        (
            torch.ones(2, 3, dtype=torch.bool),
            ValueError,
            "a keep mask needs shape [S, B, D], got [2, 3]",
        ),
    ],
    ids=["dtype", "shape"],
)
def test_hand_made_masks_are_checked(mask: Tensor, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        KeepMask(mask, 1.0)
    assert str(caught.value) == text


# ---------------------------------------------------------------- cutting and joining


@every_case
def test_one_step_alone(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    whole = keep.mask().expand(5, -1, -1)
    for t in range(5):
        assert keep[t].steps == 1
        assert keep[t].scale == keep.scale
        assert torch.equal(keep[t].mask(), whole[t : t + 1]), t


@pytest.mark.parametrize("case", ["I", "III"])
def test_no_such_step(case: str) -> None:
    with pytest.raises(IndexError):
        CASES[case].draw(5, 3, 8)[5]


@every_case
def test_side_by_side(pattern: DropoutPattern) -> None:
    left, right = pattern.draw(5, 3, 8, seeded(0)), pattern.draw(5, 3, 4, seeded(1))
    joined = left.cat(right)
    assert type(joined) is type(left)
    assert (joined.width, joined.scale) == (12, 2.0)
    assert torch.equal(joined.mask(), torch.cat([left.mask(), right.mask()], 2))


@pytest.mark.parametrize(("one", "other"), [("III", "IV"), ("IV", "III"), ("I", "II")])
def test_side_by_side_fixed_and_random_in_time(one: str, other: str) -> None:
    left, right = CASES[one].draw(5, 3, 8, seeded(0)), CASES[other].draw(5, 3, 4, seeded(1))
    joined = left.cat(right).mask()
    assert torch.equal(joined[..., :8], left.mask().expand(5, -1, -1))
    assert torch.equal(joined[..., 8:], right.mask().expand(5, -1, -1))


def test_side_by_side_needs_one_scale() -> None:
    with pytest.raises(ValueError) as error:
        DropoutPattern(0.5).draw(1, 1, 2).cat(DropoutPattern(0.75).draw(1, 1, 2))
    assert str(error.value) == (
        "keep sets side by side need one scale, got 2.0 and 4.0: apply the dropout to both inputs "
        "first and join the sets with rescaled(1.0)"
    )


def test_side_by_side_needs_one_kind() -> None:
    with pytest.raises(ValueError, match=r"must both be structured or both be random$"):
        CASES["III"].draw(1, 1, 2).cat(CASES["I"].draw(1, 1, 2))


@every_case
def test_rescaled(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    same = keep.rescaled(1.0)
    assert (type(same), same.scale, keep.scale) == (type(keep), 1.0, 2.0)
    assert torch.equal(same.mask(), keep.mask())
    dropped = keep.apply(torch.randn(5, 3, 8, generator=seeded()))
    assert torch.equal(same.apply(dropped), dropped), "an input dropped already must not change"


@every_case
@pytest.mark.parametrize("T", [1, 5])
def test_shifted(pattern: DropoutPattern, T: int) -> None:
    keep = pattern.draw(T, 3, 8, seeded())
    shifted = keep.shifted(T)
    assert (type(shifted), shifted.steps, shifted.scale) == (type(keep), T, keep.scale)
    assert shifted.mask()[0].all(), "what enters the first step was not dropped"
    assert torch.equal(shifted.mask()[1:], keep.mask().expand(T, -1, -1)[:-1])


# ---------------------------------------------------------------- applying


@every_case
def test_apply_drops_and_scales(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    x = torch.randn(5, 3, 8, generator=seeded(1), requires_grad=True)
    y = keep.apply(x)
    mask = keep.mask().expand(5, 3, 8)
    assert torch.equal(y, x * mask * 2.0)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, mask * 2.0)


@every_case
@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 1], [1, 1, 1]], ids=str)
def test_apply_to_packed_rows(pattern: DropoutPattern, lengths: list[int]) -> None:
    T = max(lengths)
    keep = pattern.draw(T, 3, 8, seeded())
    x = torch.randn(T, 3, 8, generator=seeded(1))
    rows, sizes, _, _ = pack_padded_sequence(x, torch.tensor(lengths))
    expected = pack_padded_sequence(keep.apply(x), torch.tensor(lengths)).data
    assert torch.equal(keep.apply(rows, sizes), expected)


@every_case
def test_a_dropped_nan_does_not_come_through(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    mask = keep.mask().expand(5, 3, 8)
    clean = torch.randn(5, 3, 8, generator=seeded(1))
    x = torch.where(mask, clean, torch.nan).requires_grad_()
    y = keep.apply(x)
    assert torch.equal(y, keep.apply(clean))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, mask * 2.0)


@every_case
def test_a_kept_nan_does_come_through(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    assert torch.equal(
        keep.apply(torch.full((5, 3, 8), torch.nan)).isnan(), keep.mask().expand(5, 3, 8)
    )


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_apply_keeps_the_dtype(pattern: DropoutPattern, dtype: torch.dtype) -> None:
    x = torch.ones(5, 3, 8, dtype=dtype)
    assert pattern.draw(5, 3, 8).apply(x).dtype == dtype


@every_case
def test_to_the_device_it_is_on(pattern: DropoutPattern) -> None:
    keep = pattern.draw(5, 3, 8, seeded())
    assert torch.equal(keep.to("cpu").mask(), keep.mask())
