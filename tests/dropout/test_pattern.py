"""The pattern, and the draw."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from opennmt_sd import DropoutPattern, KeepMask, KeepSets
from opennmt_sd.dropout import check_rate

CASES = {
    "I": DropoutPattern(0.5, "random", "random"),
    "II": DropoutPattern(0.5, "random", "fixed"),
    "III": DropoutPattern(0.5, "structured", "random"),
    "IV": DropoutPattern(0.5, "structured", "fixed"),
}
every_case = pytest.mark.parametrize("pattern", CASES.values(), ids=CASES.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the pattern


def test_the_default_is_case_three_at_one_half() -> None:
    assert DropoutPattern() == DropoutPattern(p=0.5, space="structured", time="random")


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (0.3, DropoutPattern(0.3, "structured", "random")),
        (0, DropoutPattern(0.0)),
        (None, DropoutPattern(0.0)),
        (CASES["II"], CASES["II"]),
    ],
    ids=["a rate is case III", "an integer", "none drops nothing", "a pattern stays"],
)
def test_of(value: object, pattern: DropoutPattern) -> None:
    assert DropoutPattern.of(value) == pattern  # type: ignore[arg-type]


def test_a_rate_may_be_any_number_with_a_float() -> None:
    assert type(DropoutPattern(torch.tensor(0.25)).p) is float  # type: ignore[arg-type]
    assert DropoutPattern(torch.tensor(0.25)).p == 0.25  # type: ignore[arg-type]


@pytest.mark.parametrize(("p", "active", "scale"), [(0.0, False, 1.0), (0.75, True, 4.0)])
def test_active_and_scale(p: float, active: bool, scale: float) -> None:
    assert DropoutPattern(p).active is active
    assert DropoutPattern(p).scale == scale


def test_a_pattern_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DropoutPattern().p = 0.9  # type: ignore[misc]


@pytest.mark.parametrize("p", [-0.1, 1.0, 1, 2.5, math.inf, math.nan])
def test_a_rate_outside_the_range(p: float) -> None:
    with pytest.raises(ValueError) as error:
        DropoutPattern(p)
    assert str(error.value) == (
        f"dropout rate {float(p)} is outside [0, 1): it is the share of units dropped; "
        "0 drops nothing"
    )


@pytest.mark.parametrize("p", ["0.5", True, [0.5], 1j, None])
def test_a_rate_that_is_not_a_number(p: object) -> None:
    with pytest.raises(TypeError) as error:
        DropoutPattern(p)  # type: ignore[arg-type]
    assert str(error.value) == f"dropout rate must be a number in [0, 1), got {p!r}"


def test_a_rate_is_called_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"^sd_encoder_dropout 1\.5 is outside \[0, 1\)"):
        check_rate(1.5, "sd_encoder_dropout")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"space": "block"}, "dropout space 'block' is unknown: use one of structured, random"),
        ({"time": "always"}, "dropout time 'always' is unknown: use one of random, fixed"),
    ],
    ids=["space", "time"],
)
def test_an_unknown_choice(given: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError) as error:
        DropoutPattern(0.5, **given)
    assert str(error.value) == text


# ---------------------------------------------------------------- the draw


@pytest.mark.parametrize(
    ("case", "kind", "mask"),
    [
        ("I", KeepMask, (7, 3, 11)),
        ("II", KeepMask, (1, 3, 11)),
        ("III", KeepSets, (7, 1, 11)),
        ("IV", KeepSets, (1, 1, 11)),
    ],
)
def test_the_four_cases(case: str, kind: type, mask: tuple[int, ...]) -> None:
    keep = CASES[case].draw(7, 3, 11)
    assert type(keep) is kind
    assert keep.mask().shape == mask
    assert keep.mask().dtype == torch.bool
    assert (keep.steps, keep.width, keep.scale) == (mask[0], 11, 2.0)


@every_case
def test_the_rate_is_met(pattern: DropoutPattern) -> None:
    pattern = dataclasses.replace(pattern, p=0.3)
    kept = torch.cat([pattern.draw(100, 20, 1000, seeded(s)).mask() for s in range(20)])
    deviation = math.sqrt(0.3 * 0.7 / kept.numel())
    assert abs(kept.double().mean() - 0.7) < 5 * deviation


@pytest.mark.parametrize("axis", [0, 2], ids=["over time", "over units"])
def test_draws_are_independent(axis: int) -> None:
    """Neighbours are both kept as often as two independent coins say."""
    kept = DropoutPattern(0.4).draw(400, 1, 500, seeded()).mask()
    n = kept.shape[axis]
    both = kept.narrow(axis, 0, n - 1) & kept.narrow(axis, 1, n - 1)
    expected = 0.6 * 0.6
    deviation = math.sqrt(expected * (1 - expected) / both.numel())
    assert abs(both.double().mean() - expected) < 8 * deviation  # neighbours overlap: wider


def test_the_number_kept_varies_as_a_binomial() -> None:
    """A unit is kept by its own coin, so not every step keeps (1 - p) D of them."""
    keep = DropoutPattern(0.5).draw(2000, 1, 400, seeded())
    assert isinstance(keep, KeepSets)
    variance = keep.count.double().var().item()
    assert variance == pytest.approx(400 * 0.5 * 0.5, rel=0.15)


def test_the_samples_of_a_random_draw_differ() -> None:
    mask = CASES["I"].draw(2, 3, 100, seeded()).mask()
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert not torch.equal(mask[0], mask[1])


@every_case
def test_one_seed_gives_the_same_sets(pattern: DropoutPattern) -> None:
    torch.manual_seed(3)
    first, second = pattern.draw(4, 2, 50), pattern.draw(4, 2, 50)
    torch.manual_seed(3)
    again = pattern.draw(4, 2, 50)
    assert torch.equal(first.mask(), again.mask())
    assert not torch.equal(first.mask(), second.mask())


@every_case
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_a_mask_keeps_what_the_sets_keep(pattern: DropoutPattern, p: float) -> None:
    pattern = dataclasses.replace(pattern, p=p)
    mask, sets = pattern.draw_mask(7, 3, 50, seeded(5)), pattern.draw(7, 3, 50, seeded(5))
    assert isinstance(mask, KeepMask)
    assert torch.equal(mask.mask(), sets.mask().expand(-1, 3, -1))
    assert mask.scale == sets.scale


@every_case
def test_a_generator_of_its_own(pattern: DropoutPattern) -> None:
    state = torch.get_rng_state()
    first = pattern.draw(4, 2, 50, seeded(5))
    assert torch.equal(torch.get_rng_state(), state), "the default generator must stay untouched"
    assert torch.equal(first.mask(), pattern.draw(4, 2, 50, seeded(5)).mask())
    assert not torch.equal(first.mask(), pattern.draw(4, 2, 50, seeded(6)).mask())


@every_case
def test_a_rate_of_zero_keeps_all(pattern: DropoutPattern) -> None:
    keep = dataclasses.replace(pattern, p=0.0).draw(3, 2, 9)
    assert keep.mask().all()
    assert keep.scale == 1.0


def test_near_one_most_steps_keep_none() -> None:
    keep = DropoutPattern(0.999).draw(100, 2, 30, seeded())
    assert isinstance(keep, KeepSets)
    assert keep.counts.count(0) > 50
    assert keep.scale == pytest.approx(1000)
    empty = keep.counts.index(0)
    assert keep.kept(empty).shape == (0,)
    assert torch.equal(keep[empty].apply(torch.ones(1, 2, 30)), torch.zeros(1, 2, 30))


@every_case
@pytest.mark.parametrize("size", [(0, 2, 5), (3, 0, 5), (3, 2, 0)], ids=["T=0", "B=0", "D=0"])
def test_nothing_to_draw(pattern: DropoutPattern, size: tuple[int, int, int]) -> None:
    x = torch.ones(size)
    assert pattern.draw(*size).apply(x).shape == x.shape
