"""The task: batches, steps with a carried state, evaluation, and what a checkpoint needs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from opennmt_sd.lm import Corpus, CorpusError, LanguageModel, LMTask


@pytest.fixture(params=["lstm", "gru"])
def model(corpus: Corpus, request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel(len(corpus.vocabulary), embedding=8, hidden=[8, 6], cell=request.param,
                         nr=0.3, rh=0.2, fc=0.3, init=0.5)  # fmt: skip


def task_of(model: LanguageModel, corpus: Corpus, **arguments) -> LMTask:
    return LMTask(model, corpus, **{"batch_size": 4, "unroll": 5, **arguments})


def test_the_state_is_carried_and_forgotten(model: LanguageModel, corpus: Corpus) -> None:
    task = task_of(model.eval(), corpus)
    first, second = task.batches(0)[:2]
    task.start_epoch(0)
    task.step(model, first)
    carried = task.step(model, second)
    ids, targets = (torch.cat(pair) for pair in zip(first, second))
    whole = model(ids, targets).nats - model(*first).nats
    torch.testing.assert_close(carried.nats, whole)
    task.start_epoch(1)
    torch.testing.assert_close(task.step(model, second).nats, model(*second).nats)


def test_a_step_counts(model: LanguageModel, corpus: Corpus) -> None:
    task = task_of(model.eval(), corpus)
    step = task.step(model, task.batches(0)[0])
    assert (step.units, step.lr_scale) == (20, 1.0)
    torch.testing.assert_close(step.nats / step.units, step.loss.detach())
    summed = task_of(model, corpus, sum_over_time=True)
    torch.testing.assert_close(summed.step(model, summed.batches(0)[0]).loss, 5 * step.loss)


def test_random_unroll_scales_the_rate(model: LanguageModel, corpus: Corpus) -> None:
    task = task_of(model, corpus, batch_size=2, unroll=10, random_unroll=True, seed=4)
    lengths = [len(batch.ids) for batch in task.batches(0)]
    assert sum(lengths) == len(corpus.train) // 2 - 1
    assert len(set(lengths)) > 2
    for batch in task.batches(0):
        assert task.step(model, batch).lr_scale == len(batch.ids) / 10
    again = task_of(model, corpus, batch_size=2, unroll=10, random_unroll=True, seed=4)
    assert again.batches(0).plan == task.batches(0).plan != task.batches(1).plan
    ranks = [task_of(model, corpus, batch_size=2, random_unroll=True, rank=r, world_size=2)
             for r in (0, 1)]  # fmt: skip
    assert ranks[0].batches(3).plan == ranks[1].batches(3).plan


def test_ranks_read_different_streams(model: LanguageModel, corpus: Corpus) -> None:
    whole = task_of(model, corpus).batches(0)[0]
    parts = [task_of(model, corpus, batch_size=2, rank=r, world_size=2).batches(0)[0]
             for r in (0, 1)]  # fmt: skip
    assert torch.equal(torch.cat([part.ids for part in parts], 1), whole.ids)


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_evaluation_scores_every_word_once(
    model: LanguageModel, corpus: Corpus, batch_size: int
) -> None:
    task = task_of(model, corpus, eval_batch_size=batch_size)
    scores = task.evaluate(model, "valid")
    text, model = corpus.valid, model.eval()
    width = len(text) // batch_size
    nats = 0.0
    for b in range(batch_size):  # the last stream goes on to the end of the text
        end = len(text) if b == batch_size - 1 else (b + 1) * width
        stream = text[b * width : end, None]
        nats += float(model(stream[:-1], stream[1:]).nats)
    words = len(text) - batch_size  # all but the first of each stream
    assert scores["loss"] == pytest.approx(nats / words, rel=1e-6)
    assert scores["perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-6)


def test_evaluation_of_test_is_one_pass(model: LanguageModel, corpus: Corpus) -> None:
    scores = task_of(model, corpus).evaluate(model, "test")
    text = corpus.test[:, None]
    logits, _ = model.eval().logits(text[:-1])
    want = F.cross_entropy(logits[:, 0], text[1:, 0])
    assert scores["loss"] == pytest.approx(want.item(), rel=1e-6)


def test_evaluation_leaves_no_trace(model: LanguageModel, corpus: Corpus) -> None:
    task = task_of(model.train(), corpus)
    task.step(model, task.batches(0)[0])
    before = copy.deepcopy(task.state_dict()), torch.get_rng_state()
    task.evaluate(model, "valid")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before[1])
    for pair, old in zip(task.state_dict()["hidden"], before[0]["hidden"]):
        assert all(torch.equal(x, y) for x, y in zip(pair, old))


def test_evaluation_that_fails_leaves_training_on(model: LanguageModel, corpus: Corpus) -> None:
    task = task_of(model.train(), corpus)
    broken = torch.nn.Module()
    broken.forward = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        task.evaluate(broken, "valid")
    assert broken.training


def test_state_goes_through_a_checkpoint(model: LanguageModel, corpus: Corpus, tmp_path) -> None:
    task, batches = task_of(model, corpus), task_of(model, corpus).batches(0)
    assert task.state_dict() == {"hidden": None}
    task.step(model, batches[0])
    torch.save(task.state_dict(), tmp_path / "state.pt")
    other = task_of(model, corpus)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    losses = []
    for t in (task, other):
        torch.manual_seed(3)
        losses.append(t.step(model, batches[1]).loss)
    assert torch.equal(*losses)
    other.load_state_dict({"hidden": None})
    assert other.state_dict() == {"hidden": None}


def test_refusals(model: LanguageModel, corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"^the training text has 204 words with <eos>: too few "):
        task_of(model, corpus, batch_size=103)
    with pytest.raises(CorpusError, match=r"^the validation text has 42 words with <eos>: too few"):
        task_of(model, corpus, eval_batch_size=22)
    with pytest.raises(
        CorpusError, match=r"Take a longer text, or data.eval_batch_size 21 at most"
    ):
        task_of(model, corpus, eval_batch_size=22)
    with pytest.raises(ValueError) as error:
        task_of(model, corpus, unroll=0)
    assert str(error.value) == "unroll must be at least 1 step, got 0"
    with pytest.raises(ValueError) as error:
        task_of(model, corpus).evaluate(model, "train")
    assert str(error.value) == "split 'train' is unknown: use one of valid, test"
