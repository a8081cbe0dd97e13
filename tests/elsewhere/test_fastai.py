"""fastai's AWD-LSTM, whose recurrent weights are dropped anew before each call, converted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from opennmt_sd import StructuredLSTM, conversion_report, convert, revert

pytest.importorskip("fastai", reason="fastai is not installed; scripts/check_elsewhere.sh tries it")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def recipe(example: Any) -> Any:
    return example("fastai_language_model")


@pytest.fixture
def learn(recipe: Any) -> Any:
    return recipe.learner(recipe.loaders(limit=400), hidden=48)


def evaluated(learn: Any) -> torch.Tensor:
    learn.model[0].reset()
    x = torch.arange(2, 142).view(2, 70)
    return learn.model.eval()(x)[0]


def trains(recipe: Any, learn: Any) -> None:
    before = [parameter.detach().clone() for parameter in learn.model[0].rnns.parameters()]
    losses = [recipe.epoch(learn) for _ in range(2)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    after = learn.model[0].rnns.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(after, before)), "everything learns"


def test_the_recipe(recipe: Any, learn: Any) -> None:
    before = evaluated(learn)
    recipe.converted(learn)
    assert torch.equal(evaluated(learn), before)
    rnns = learn.model[0].rnns
    assert conversion_report(learn.model).converted == [f"0.rnns.{i}" for i in range(3)]
    assert [rnn.input_dropout.p for rnn in rnns] == [0.65, 0.3, 0.3]
    assert [rnn.recurrent_dropout.p for rnn in rnns] == [0.5] * 3
    trains(recipe, learn)
    assert torch.equal(evaluated(learn), (revert(learn.model), evaluated(learn))[1])
    assert not any(isinstance(m, StructuredLSTM) for m in learn.model.modules())


def test_its_weight_dropout_goes_on_too(recipe: Any, learn: Any) -> None:
    """What is within a WeightDropout is converted as it is, and the report names its weight."""
    before = evaluated(learn)
    convert(learn.model, input_dropout=0.3)
    assert torch.equal(evaluated(learn), before)
    report = conversion_report(learn.model)
    assert report.converted == [f"0.rnns.{i}.module" for i in range(3)]
    assert all(found.why.endswith("by what is around it: weight_hh_l0")
               for found in report.modules)  # fmt: skip
    trains(recipe, learn)
