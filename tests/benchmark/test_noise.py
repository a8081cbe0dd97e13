"""The suite ``noise``: known cases, and the draws that it compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, StructuredDropout
from opennmt_sd.benchmark import noise
from opennmt_sd.benchmark.draws import DRAWS, ORDINARY, STRUCTURED, Draw, emulated, named
from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin
from opennmt_sd.seq2seq.dropout_plan import PLACES, DropoutPlan

P, T, B, D = 0.3, 3, 8, 50


@dataclass
class Linear:
    """y = x w over rows of ones: the gradient of the mean of y by w is the mean of the masks."""

    batches: int = 2

    def gradient(self, batch: int) -> Tensor:
        drop = StructuredDropout(DropoutPattern(P, space="random")).train()
        weight = torch.ones(D, requires_grad=True)
        y = drop(torch.ones(1, B, D)) @ weight
        return torch.autograd.grad(y.mean(), weight)[0]


def found(draw: Draw, repeats: int = 300) -> float:
    case = noise.Case("linear", lambda *_: Linear(), P, B)
    (row,) = noise.rows([case], draws=[draw], repeats=repeats)
    return row.noise


@pytest.mark.parametrize(("groups", "sets"), [(None, B), (1, 1), (2, 2), (4, 4), (100, B)])
def test_the_noise_of_a_linear_layer(groups: int | None, sets: int) -> None:
    """Each unit's mask has the variance p / (1 - p) and the mean 1; a mean over independent sets
    has so many times less of it. An exact count changes nothing about a unit alone."""
    for exact in (False, True):
        draw = Draw("this one", groups=groups, exact=exact)
        assert found(draw) == pytest.approx(P / (1 - P) / sets, rel=0.05)


def test_what_is_spread_over_groups_is_hardly_noisy() -> None:
    """Of 4 sets a unit leaves 1, or, in .2 of all cases, 2: 4 * .3 = 1.2 on average."""
    even = found(Draw("this one", groups=4, spread="groups"))
    assert even == pytest.approx(0.2 * 0.8 / 4**2 / (1 - P) ** 2, rel=0.05)


def test_what_the_sum_over_steps_makes_of_spreading() -> None:
    torch.manual_seed(0)
    variances = []
    for spread in (None, "steps"):
        masks = [Draw("", spread=spread).keep(P, 20, 1, 1).dense.sum() for _ in range(500)]
        variances.append(float(torch.stack(masks).double().var()))
    apart, spread_out = variances
    assert apart == pytest.approx(20 * P * (1 - P), rel=0.2)
    assert spread_out < apart / 10


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.name)
def test_a_unit_is_kept_as_often_as_the_rate_says(draw: Draw) -> None:
    torch.manual_seed(0)
    keep = [draw.keep(P, T, B, D) for _ in range(300)]
    assert keep[0].dense.shape == (T, B, D)
    kept = torch.stack([one.dense for one in keep]).double().mean(0)
    assert kept.mean() == pytest.approx(1 - P, abs=0.01)
    assert (kept - (1 - P)).abs().max() < 0.12  # 5 standard errors, at each place by itself
    assert keep[0].scale == pytest.approx(1 / (1 - P))


def test_rows_of_a_group_share_their_sets() -> None:
    mask = Draw("", groups=3).keep(0.5, T, 8, D).dense
    ranges = (slice(0, 3), slice(3, 6), slice(6, 8))
    for rows in ranges:
        assert (mask[:, rows] == mask[:, rows.start : rows.start + 1]).all()
    assert len({tuple(mask[0, rows.start].tolist()) for rows in ranges}) == 3


@pytest.mark.parametrize("name", ["Case III", "Case III, the output staggered"])
def test_a_decoder_staggers_its_output_where_the_draw_says_so(name: str) -> None:
    plan = DropoutPlan(0.5, space="random")
    with emulated(named(name)):
        assert plan.staggered == ("staggered" in name)
    assert not plan.staggered


def test_the_output_of_a_decoder_may_have_a_rule_of_its_own() -> None:
    mixin = DropoutMixin()
    mixin.plan, mixin.generator, mixin.training = DropoutPlan(0.5, space="random"), None, True
    with emulated(named("Case III, the output as in Case I")):
        found = {place: mixin.draw(place, torch.ones(1), 3, 8, D) for place in PLACES}
    assert found["recurrent"] is None
    for place, keep in found.items():
        if keep is not None:
            shared = (keep.mask() == keep.mask()[:, :1]).all()
            assert shared == (place != "output"), place


def test_a_model_without_decoder_has_no_rows_of_its_output() -> None:
    case = noise.Case("linear", lambda *_: Linear(), P, B)
    draws = [STRUCTURED, named("Case III, the output staggered")]
    assert [row.draw for row in noise.rows([case], draws=draws, repeats=2)] == ["Case III"]
    decoder = replace(case, decodes=True)
    assert len([*noise.rows([decoder], draws=draws, repeats=2)]) == 2


def test_exact_sets_have_one_size() -> None:
    keep = Draw("", groups=2, exact=True).keep(0.3, T, B, 5)
    assert keep.dense.sum(2).unique().tolist() == [4]  # 3.5, a half upwards
    assert keep.scale == 5 / 4


@pytest.mark.parametrize(("draw", "pattern"), [
    (ORDINARY, {"space": "random"}), (STRUCTURED, {}), (named("exact"), {"count": "exact"}),
], ids=lambda given: getattr(given, "name", ""))  # fmt: skip
def test_what_the_package_draws_has_the_same_moments(draw: Draw, pattern: dict[str, str]) -> None:
    """Of how many rows keep a unit, and of how many units a row keeps."""
    torch.manual_seed(0)
    rule = DropoutPattern(P, **pattern)
    kinds: list[Callable[[], Tensor]] = [
        lambda: draw.keep(P, 1, B, D).dense[0], lambda: rule.draw_mask(1, B, D).mask()[0],
    ]  # fmt: skip
    emulated_one, real = (torch.stack([kind() for _ in range(1500)]).double() for kind in kinds)
    for dim in (1, 2):
        variances = [float(masks.sum(dim).var(0).mean()) for masks in (emulated_one, real)]
        assert variances[0] == pytest.approx(variances[1], rel=0.1, abs=1e-9)


def test_one_seed_gives_the_same_figures() -> None:
    assert found(STRUCTURED, 5) == found(STRUCTURED, 5)


def test_a_row() -> None:
    case = noise.Case("linear", lambda *_: Linear(), P, B)
    rows = list(noise.rows([case], draws=[ORDINARY, STRUCTURED], repeats=20))
    assert [row.draw for row in rows] == ["Case I", "Case III"]
    assert (rows[0].price, rows[0].error) == (0, 0)
    assert rows[1].price == pytest.approx(rows[1].noise / rows[0].noise - 1)
    cells = noise.table(rows)
    assert list(cells[0].values()) == [
        "linear", "0.3", "8", "Case I", f"{rows[0].noise:.3f}", "+0.0%", "0.0%"
    ]  # fmt: skip
    assert rows[1].as_json()["error"] == rows[1].error


def test_one_batch_has_no_error() -> None:
    case = noise.Case("linear", lambda *_: Linear(batches=1), P, B)
    (row,) = noise.rows([case], draws=[STRUCTURED], repeats=2)
    assert "error" not in row.as_json()
    assert noise.table([row])[0]["+-"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", [noise.CASES[1], noise.CASES[-2]], ids=lambda case: case.name)
def test_a_model_learns_and_its_gradient_is_noisy(case: noise.Case) -> None:
    """Both models, after two updates: the masks that are drawn are those of the rule."""
    draws = [ORDINARY, Draw("none", groups=1)]
    torch.manual_seed(1)
    rows = list(noise.rows([case], draws=draws, updates=2, repeats=3))
    assert [row.draw for row in rows] == ["Case I", "none"]
    assert all(row.noise > 0 for row in rows)
    assert rows[0].noise != rows[1].noise


class TestBadInput:
    @pytest.mark.parametrize("groups", [0, -2])
    def test_groups(self, groups: int) -> None:
        with pytest.raises(ValueError) as error:
            Draw("this one", groups=groups)
        assert str(error.value) == (
            f"groups must be 1 or more, got {groups}; None gives every row its own set"
        )

    def test_spread(self) -> None:
        with pytest.raises(ValueError) as error:
            Draw("this one", spread="units")
        assert str(error.value) == "spread 'units' is unknown: use 'steps', 'groups' or None"

    def test_a_name(self) -> None:
        with pytest.raises(ValueError) as error:
            named("5 groups")
        assert str(error.value).startswith(
            "no draw is named '5 groups': use one of Case I; Case III; exact; 2 groups; "
        )

    def test_a_structured_space(self) -> None:
        with emulated(STRUCTURED), pytest.raises(ValueError) as error:
            DropoutPattern(0.5).draw(1, 2, 3)
        assert str(error.value) == (
            "'Case III' is emulated by masks, which a structured space does not take: give the "
            "model space 'random' (sd_space random)"
        )
        assert DropoutPattern(0.5).draw(1, 2, 3).width == 3  # and afterwards all is as before

    def test_one_draw_has_no_variance(self) -> None:
        with pytest.raises(ValueError) as error:
            noise.moments([torch.ones(3)])
        assert str(error.value) == "a variance needs two draws or more, got 1"
