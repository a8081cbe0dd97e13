"""A pattern is its rate where a number is asked for."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace

import pytest

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredLSTM


def test_a_rate_that_was_given_is_a_number() -> None:
    lstm = StructuredLSTM(4, 4, 2, dropout=0.3)
    assert float(lstm.dropout) == lstm.dropout == 0.3
    assert 0 < lstm.dropout < 0.5
    assert 1 - lstm.dropout == 0.7
    assert json.loads(json.dumps({"dropout": lstm.dropout})) == {"dropout": 0.3}
    assert f"{MaskedLinear(4, 4).dropout:.2f}" == "0.50"
    lstm.dropout = 0.4
    assert lstm.dropout != 0.3
    assert lstm.dropout == 0.4


def test_patterns_are_told_apart() -> None:
    case1 = DropoutPattern(0.3, space="random")
    assert case1 != DropoutPattern(0.3)
    assert case1 != 0.3, "a bare number means Case III"
    assert DropoutPattern(0.3) == 0.3
    assert len({case1, DropoutPattern(0.3), 0.3}) == 2
    assert repr(case1) == "DropoutPattern(p=0.3, space='random', time='random')"
    for again in (copy.deepcopy(case1), pickle.loads(pickle.dumps(case1)), replace(case1)):
        assert again == case1
        assert (again.p, float(again), again.space) == (0.3, 0.3, "random")
    assert float(replace(case1, p=0.6)) == 0.6


def test_a_pattern_is_no_rate_of_another() -> None:
    with pytest.raises(TypeError) as error:
        DropoutPattern(DropoutPattern(0.3, space="random"))
    assert str(error.value) == (
        "dropout rate must be a number in [0, 1), got "
        "DropoutPattern(p=0.3, space='random', time='random')"
    )
