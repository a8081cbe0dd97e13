"""Places and plan: which rate holds where."""

from __future__ import annotations

from argparse import Namespace

import pytest

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.seq2seq.dropout_plan import PLACES, DropoutPlan

FOLLOWERS = ["src_embedding", "encoder", "tgt_embedding", "decoder", "output"]


def test_places_are_stocks_and_the_recurrent_one() -> None:
    assert list(PLACES) == [*FOLLOWERS, "recurrent"]
    assert [name for name, place in PLACES.items() if not place.follows] == ["recurrent"]


@pytest.mark.parametrize("dropout", [[0.3, 0.1], 0.3], ids=["schedule", "old_checkpoint"])
def test_plan_of_stock_options(dropout: object) -> None:
    plan = DropoutPlan.from_opt(Namespace(dropout=dropout))
    assert {plan.pattern(place) for place in FOLLOWERS} == {DropoutPattern(0.3)}
    assert plan.pattern("recurrent") == DropoutPattern(0.0)


def test_plan_of_our_options() -> None:
    opt = Namespace(
        dropout=[0.3],
        sd_space="random",
        sd_time="fixed",
        sd_output_dropout=0.0,  # its own rate, although it drops nothing
        sd_encoder_dropout=None,
        sd_recurrent_dropout=0.25,
    )
    plan = DropoutPlan.from_opt(opt)
    assert plan.pattern("encoder") == DropoutPattern(0.3, "random", "fixed")
    assert plan.pattern("output") == DropoutPattern(0.0, "random", "fixed")
    assert plan.pattern("recurrent") == DropoutPattern(0.25, "random", "fixed")


@pytest.mark.parametrize(
    ("space", "time", "count"),
    [("structured", "random", "exact"), ("structured", "fixed", "exact"),
     ("random", "random", "bernoulli"), ("random", "fixed", "bernoulli")],
)  # fmt: skip
def test_a_count_not_asked_for_is_that_of_the_space(space: str, time: str, count: str) -> None:
    want = {DropoutPattern(0.3, space, time, count)}
    opt = Namespace(dropout=[0.3], sd_space=space, sd_time=time, sd_count=None)
    for plan in (DropoutPlan(0.3, space=space, time=time), DropoutPlan.from_opt(opt)):
        assert {plan.pattern(place) for place in FOLLOWERS} == want
        plan.follow(0.1)
        assert plan.pattern("output") == DropoutPattern(0.1, space, time, count)
    asked = DropoutPlan(0.3, space=space, time=time, count="bernoulli")
    assert asked.pattern("encoder") == DropoutPattern(0.3, space, time)
    with pytest.raises(ValueError, match="count 'exact' needs space 'structured'"):
        DropoutPlan(0.3, space="random", time=time, count="exact")


def test_an_exact_count_stays_whatever_a_schedule_does() -> None:
    plan = DropoutPlan.from_opt(Namespace(dropout=[0.3], sd_count="exact", sd_output_dropout=0.2))
    plan.follow(0.1)
    assert plan.pattern("encoder") == DropoutPattern(0.1, count="exact")
    assert plan.pattern("output") == DropoutPattern(0.2, count="exact")
    assert "encoder 0.1 structured/random/exact, " in plan.describe()


def test_staggered_sets_are_those_of_a_structured_output_with_new_ones_at_each_step() -> None:
    assert DropoutPlan(0.3, output="staggered").staggered
    for other in ({"output": "by_step"}, {"space": "random"}, {"time": "fixed"}):
        plan = DropoutPlan(0.3, **{"output": "staggered", **other})
        assert not plan.staggered
        assert "staggered" not in plan.describe()
    for count, shown in (("exact", "/exact"), ("bernoulli", "")):
        described = DropoutPlan(0.3, output="staggered", count=count).describe()
        output = f"output 0.3 structured/random{shown}/staggered, "
        assert f"decoder 0.3 structured/random{shown}, {output}" in described


def test_a_checkpoint_without_options_has_sets_of_steps_and_no_exact_ones() -> None:
    older = DropoutPlan.from_opt(Namespace(dropout=[0.3]))
    assert not older.staggered
    assert not older.pattern("output").exact
    assert DropoutPlan.from_opt(Namespace(dropout=[0.3], sd_output_sets="staggered")).staggered


def test_follow_moves_only_places_without_a_rate_of_their_own() -> None:
    plan = DropoutPlan(0.3, {"output": 0.3})
    plan.follow(0.1)
    rates = {place: plan.pattern(place).p for place in PLACES}
    assert rates == dict.fromkeys(FOLLOWERS, 0.1) | {"output": 0.3, "recurrent": 0.0}


def test_describe_is_one_line_with_rate_space_and_time_of_each_place() -> None:
    plan = DropoutPlan(0.3, {"recurrent": 0.125}, time="fixed", count="bernoulli")
    assert plan.describe() == (
        "src_embedding 0.3 structured/fixed, encoder 0.3 structured/fixed, "
        "tgt_embedding 0.3 structured/fixed, decoder 0.3 structured/fixed, "
        "output 0.3 structured/fixed, recurrent 0.125 structured/fixed"
    )
    assert plan.describe(("encoder",)) == (
        "src_embedding 0.3 structured/fixed, encoder 0.3 structured/fixed, "
        "tgt_embedding stock, decoder stock, output stock, recurrent 0.125 structured/fixed"
    )


@pytest.mark.parametrize(
    ("opt", "text"),
    [
        (Namespace(dropout=[1.0]), r"dropout 1\.0 is outside \[0, 1\)"),
        (Namespace(dropout=[0.1], sd_output_dropout=-0.1), r"-0\.1 is outside \[0, 1\)"),
        (Namespace(dropout=[0.1], sd_time="sometimes"), "time 'sometimes' is unknown"),
        (Namespace(dropout=[0.1], sd_count="about"), "count 'about' is unknown"),
        (
            Namespace(dropout=[0.1], sd_output_sets="both"),
            "output 'both' is unknown: use one of staggered, by_step",
        ),
    ],
    ids=["dropout", "own_rate", "time", "count", "output"],
)
def test_bad_values(opt: Namespace, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DropoutPlan.from_opt(opt)
