"""Times, errors and the gate."""

from __future__ import annotations

import time

import pytest
import torch

from opennmt_sd.benchmark.measure import WARM_UP, Turns, alternate
from opennmt_sd.benchmark.row import RedGateError, Row, gate, relative_error


def test_variants_take_turns_and_change_who_begins() -> None:
    calls: list[str] = []
    alternate({name: lambda name=name: calls.append(name) for name in "abc"}, repeats=1)
    assert WARM_UP == 2
    assert "".join(calls) == "abcbcacab"


def test_the_median_counts_in_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    # Beginning and end of two that warm up, then of 3, 9 and 4 ms.
    ticks = iter([0, 0.5, 0, 0.5, 0, 0.003, 1, 1.009, 2, 2.004])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    assert alternate({"x": lambda: None}, repeats=3) == {"x": pytest.approx(4.0)}


@pytest.mark.parametrize(("each", "rounds"), [(0.001, 9), (0.01, 4), (1.0, 3)])
def test_rounds_end_with_the_budget(
    each: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 40 ms, but not before three."""
    now = [0.0]
    calls: list[str] = []

    def work() -> None:
        calls.append("x")
        now[0] += each

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    ms = alternate({"x": work}, repeats=9, budget_ms=39.9)
    assert len(calls) == WARM_UP + rounds
    assert ms == {"x": pytest.approx(1e3 * each)}


def test_a_turn_of_what_is_short_is_many_calls() -> None:
    assert [Turns().calls(ms) for ms in (0.0, 0.05, 0.5, 1.9, 7.0)] == [20, 20, 4, 1, 1]


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),  # over the largest value, not element by element
        ([0.1, 2.0], [0.0, 2.0], 0.05),
        ([float("nan"), 2.0], [0.0, 2.0], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
    ],
)
def test_relative_error(got: list[float], want: list[float], error: float) -> None:
    found = relative_error([torch.tensor(got)], [torch.tensor(want)])
    assert found == pytest.approx(error)


def test_the_worst_of_all_pairs_counts() -> None:
    pairs = [torch.ones(2), torch.ones(2)], [torch.ones(2), torch.full((2,), 2.0)]
    assert relative_error(*pairs) == 0.5


@pytest.mark.parametrize("error", [2e-4, float("inf"), float("nan")])
def test_a_red_gate_tells_both_numbers(error: float) -> None:
    assert gate("x", 1e-5, 1e-4) == 1e-5
    with pytest.raises(RedGateError) as red:
        gate("650 NR step", error, 1e-4)
    assert str(red.value) == (
        f"650 NR step: the largest relative error is {error:.1e}, 1e-04 is allowed: results are "
        "wrong, so no speed is reported"
    )


def test_a_row_as_json() -> None:
    row = Row(suite="ops", case="650 RH", phase="REC-FP", p=0.5, torch_ms=12.0, dense_ms=6.0,
              ours_ms=3.0, ideal=2.0, max_rel_err=1e-7, gflops=300.0)  # fmt: skip
    assert row.as_json() == {
        "suite": "ops", "case": "650 RH", "phase": "REC-FP", "p": 0.5, "torch_ms": 12.0,
        "dense_ms": 6.0, "ours_ms": 3.0, "ideal": 2.0, "max_rel_err": 1e-7, "gflops": 300.0,
        "speedup_vs_torch": 4.0, "speedup_vs_dense": 2.0, "share_of_ideal": 2.0,
    }  # fmt: skip
