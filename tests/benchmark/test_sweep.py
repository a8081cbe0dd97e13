"""Suite ``sweep``: what it draws, how it measures, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd.benchmark import gru, lstm, shapes, sweep
from opennmt_sd.benchmark.recurrent import Case
from opennmt_sd.benchmark.row import RedGateError, Row
from opennmt_sd.benchmark.shapes import LINEAR, STEP, Shape
from opennmt_sd.nn import MaskedLinear

TINY = {
    "lstm, both ways, packed": Case(lstm.CELL, "", 12, 9, 0.5, True, 3, (2, 4), True),
    "lstm, RH alone": Case(lstm.CELL, "", 12, 9, 0.3, True, 2, (3, 3), input=False),
    "gru": Case(gru.CELL, "", 12, 9, 0.5, False, 2, (3, 3)),
    "cell": Case(STEP, "", 12, 9, 0.5, True, 2, (3, 3)),
    "linear, packed": Case(LINEAR, "", 12, 9, 0.9, False, 3, (1, 4)),
    "nothing dropped": Case(LINEAR, "", 12, 9, 0.0, False, 3, (4, 4)),
}


def row(ratio: float, case: str = "0 lstm", phase: str = "step", p: float = 0.5) -> Row:
    return Row(suite="sweep", case=case, phase=phase, p=p, torch_ms=ratio, dense_ms=2 * ratio,
               ours_ms=1.0, ideal=2.0, max_rel_err=1e-7)  # fmt: skip


def test_a_seed_draws_the_same_shapes() -> None:
    first = shapes.draw(3, 40)
    assert shapes.draw(3, 60)[:40] == first
    assert shapes.draw(4, 40) != first


def test_every_kind_is_drawn_within_bounds() -> None:
    drawn = shapes.draw(0, 300)
    assert len({shape.name for shape in drawn}) == 300
    cases = [shape.case for shape in drawn]
    assert {case.cell for case in cases} == {lstm.CELL, gru.CELL, STEP, LINEAR}
    assert {case.p for case in cases} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    for of in (lstm.CELL, gru.CELL):
        layers = [case for case in cases if case.cell is of]
        places = {(case.input, case.recurrent) for case in layers}
        assert places == {(True, False), (False, True), (True, True)}
        both = {(case.bidirectional, case.packed) for case in layers}
        assert both == {(True, True), (True, False), (False, True), (False, False)}
    for shape, case in zip(drawn, cases):
        assert 1 <= case.lengths[0] <= case.lengths[1] <= 100
        assert 1 <= case.batch <= 128
        assert 8 <= min(case.inputs, case.hidden) <= max(case.inputs, case.hidden) <= 2048
        assert shape.multiplications <= shapes.MOST
    assert {shape.threads for shape in drawn} == {1, 2}


def test_multiplications_are_those_of_the_products() -> None:
    """4 gates of 9 units on 12 inputs and 9 units, both ways, of 2 + 3 + 4 rows."""
    assert Shape(TINY["lstm, both ways, packed"], 1).multiplications == 9 * 4 * 9 * 21 * 2
    assert Shape(TINY["linear, packed"], 1).multiplications == (1 + 2 + 4) * 12 * 9


@pytest.mark.parametrize("name", TINY)
def test_each_kind_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PATIENCE", (1,))
    step, evaluation = sweep.run(1, [Shape(TINY[name], 1)])
    assert (step.phase, evaluation.phase) == ("step", "eval")
    assert step.p == evaluation.p == TINY[name].p
    for found in (step, evaluation):
        assert min(found.torch_ms, found.dense_ms, found.ours_ms) > 0
        assert 0 <= found.max_rel_err < 1e-5


def test_recurrent_dropout_is_held_against_none() -> None:
    """torch's has no such thing; and there is no other rate in its way."""
    works = sweep._works(TINY["lstm, RH alone"])
    assert works["torch"].model.dropout.p == 0.0
    assert works["ours"].model.recurrent_dropout.p == 0.3
    assert not works["ours"].model.input_dropout.active
    masks, layer = works["dense"].model
    assert not masks.dropout.active
    assert not layer.recurrent_dropout.active


def test_a_cell_is_held_against_dropout_at_each_step() -> None:
    case = Case(STEP, "", 12, 9, 0.4, True, 2, (3, 3))
    plain = sweep._works(case)["torch"].model
    seen: list[int] = []
    for dropout in (plain.rnn.of_x, plain.rnn.of_h):
        assert dropout.p == 0.4
        dropout.register_forward_hook(lambda *_: seen.append(1))
    plain(torch.randn(3, 2, 12))
    assert plain.dropout.p == 0.0
    assert len(seen) == 6


def test_a_shape_has_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def rows(*_: Any) -> list[Row]:
        seen.append(torch.get_num_threads())
        return [row(1.0)]

    monkeypatch.setattr(sweep, "_rows", rows)
    case = TINY["cell"]
    list(sweep.run(1, [Shape(case, 2), Shape(case, 1)]))
    assert seen == [2, 1]
    assert torch.get_num_threads() == before
    assert {shape.threads for shape in sweep.cases(0, 20, threads=3)} == {3}


@pytest.mark.parametrize(
    ("ratios", "rounds"),
    [([0.96], [5]), ([0.5, 1.0], [5, 15]), ([0.5, 0.9, 0.94], [5, 15, 45])],
    ids=["fast", "noise", "slow"],
)
def test_what_seems_slow_is_measured_again(
    ratios: list[float], rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def alternate(variants: Any, repeats: int, *_: Any) -> dict[str, float]:
        asked.append(repeats)
        return {"torch": ratios[len(asked) - 1], "ours": 1.0}

    monkeypatch.setattr(sweep, "alternate", alternate)
    assert sweep._measured({}, 5)["torch"] == ratios[-1]
    assert asked == rounds


def test_a_wrong_result_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MaskedLinear.forward

    def wrong(self: MaskedLinear, input: Tensor) -> Any:
        return right(self, input) + (0.1 if self.weight.dtype == torch.float32 else 0.0)

    monkeypatch.setattr(MaskedLinear, "forward", wrong)
    case = Case(LINEAR, "0 linear", 12, 9, 0.5, False, 3, (4, 4))
    with pytest.raises(RedGateError, match="0 linear: the largest relative error is"):
        list(sweep.run(1, [Shape(case, 1)]))


def test_the_worst_and_the_medians() -> None:
    rows = [row(2.0), row(3.0), row(4.0), row(1.0, p=0.1), row(1.5, phase="eval")]
    assert [found.torch_ms for found in sweep.worst(rows)] == [1.0, 1.5, 2.0, 3.0, 4.0]
    assert len(sweep.worst(rows * 5)) == 10
    assert sweep.words(rows) == [
        "training at p = .5: median of 3 3.00x against torch, 6.00x against leaving nothing out",
        "training: median of 4 2.50x against torch, 5.00x against leaving nothing out",
        "evaluation: median of 1 1.50x against torch, 3.00x against leaving nothing out",
    ]
    assert len(sweep.words(rows[-1:])) == 1


def test_what_is_slower_is_told() -> None:
    assert sweep.slower([row(0.95), row(2.0)]) is None
    rows = [row(0.949), row(2.0), row(0.6, "7 cell B 1", "eval")]
    assert sweep.slower(rows) == (
        "2 of 3 under 0.95 of torch's speed, the worst 0.60x (7 cell B 1, eval)"
    )
