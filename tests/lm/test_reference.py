"""Ours without dropout is the plain PyTorch model: loss, gradients, and after 20 updates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opennmt_sd.lm import Corpus, LanguageModel, LMTask, ReferenceLanguageModel

SHAPES = {
    "2 layers": {"embedding": 8, "hidden": 8, "layers": 2},
    "tied": {"embedding": 8, "hidden": [9, 9, 8], "tied": True, "init": None},
    "GRU": {"embedding": 8, "hidden": [9, 9, 8], "cell": "gru"},
}
Pair = tuple[LanguageModel, ReferenceLanguageModel]


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, corpus: Corpus) -> Pair:
    V, shapes = len(corpus.vocabulary), SHAPES[request.param]
    return LanguageModel(V, **shapes), ReferenceLanguageModel(V, **shapes, nr=0.3, fc=0.3)


def without_dropout(model: ReferenceLanguageModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.RNNBase):
            module.dropout = 0.0


def test_parameters_go_both_ways(pair: Pair, request: pytest.FixtureRequest) -> None:
    ours, theirs = pair
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert type(theirs.stacks[0]) is (nn.GRU if "GRU" in request.node.name else nn.LSTM)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def test_evaluation_is_equal(pair: Pair, corpus: Corpus) -> None:
    ours, theirs = pair
    theirs.load_state_dict(ours.state_dict())
    scores = [LMTask(m, corpus, batch_size=4, eval_batch_size=3).evaluate(m, "valid") for m in pair]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-6)


def test_training_without_dropout_is_equal(pair: Pair, corpus: Corpus) -> None:
    ours, theirs = pair
    theirs.load_state_dict(ours.state_dict())
    without_dropout(theirs)
    steps = []
    for model in pair:
        task = LMTask(model, corpus, batch_size=4, unroll=2, sum_over_time=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        task.start_epoch(0)
        trace = []
        for batch in task.batches(0)[:20]:
            step = task.step(model, batch)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            trace.append((step, [p.grad.clone() for p in model.parameters()]))
        steps.append(trace)
    assert len(steps[0]) == 20
    for (a, grads), (b, others) in zip(*steps):
        torch.testing.assert_close(a.loss, b.loss)
        torch.testing.assert_close(a.nats, b.nats)
        assert a.units == b.units
        for g, o in zip(grads, others):
            # Rounding differs, and 20 updates carry it on.
            torch.testing.assert_close(g, o, rtol=1e-4, atol=1e-5)
    losses = [float(step.nats) / step.units for step, _ in steps[0]]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.15  # and it learns


def test_it_drops_as_torch_does(corpus: Corpus) -> None:
    model = ReferenceLanguageModel(len(corpus.vocabulary), embedding=8, hidden=8, layers=2,
                                   nr=0.3, fc=0.4)  # fmt: skip
    assert (model.dropout.p, model.stacks[0].dropout, model.output_dropout.p) == (0.3, 0.3, 0.4)
    ids = torch.zeros(3, 2, dtype=torch.int64)
    assert model(ids, ids).loss != model(ids, ids).loss
