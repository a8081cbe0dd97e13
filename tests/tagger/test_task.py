"""The tagger as a task: loss, learning, evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from opennmt_sd import DropoutPattern
from opennmt_sd.tagger.conll import ConllError
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.model import Tagger
from opennmt_sd.tagger.task import TaggerTask
from opennmt_sd.tagger.trained import Trained
from opennmt_sd.training.task import Task

Make = Callable[..., TaggerTask]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_it_is_a_task(make: Make) -> None:
    task: Task = make()
    assert (task.unit, task.score, task.mode) == ("sentences", "f1", "max")
    assert task.state_dict() == {}
    task.load_state_dict({})
    task.start_epoch(0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_step(make: Make, reduction: str) -> None:
    task = make(task_reduction=reduction)
    batch = task.batches(0)[0]
    step = task.step(task.model, batch)
    assert step.units == 2
    assert not step.nats.requires_grad
    expected = step.nats / 2 if reduction == "mean" else step.nats
    torch.testing.assert_close(step.loss.detach(), expected)


def test_it_learns_by_heart(trained: Trained) -> None:
    tags = trained.tags([["Peter", "Blackburn", "met"], [], ["BRUSSELS"]])
    assert tags == [["B-PER", "E-PER", "O"], [], ["S-LOC"]]


def test_training_steps_lower_the_loss_with_structured_dropout(make: Make) -> None:
    p = DropoutPattern(0.3)
    task = make(input_dropout=p, output_dropout=p, recurrent_dropout=p)
    optimizer = torch.optim.SGD(task.model.parameters(), 0.1, momentum=0.9)
    losses = []
    for epoch in range(12):
        steps = []
        for batch in task.batches(epoch):
            step = task.step(task.model, batch)
            optimizer.zero_grad()
            step.loss.backward()
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), 5.0)
            optimizer.step()
            steps.append(step)
        losses.append(sum(float(s.nats) for s in steps) / sum(s.units for s in steps))
    assert losses[-1] < 0.5 * losses[0]


def test_evaluation_leaves_no_trace(make: Make) -> None:
    task = make(input_dropout=DropoutPattern(0.5))
    state = torch.get_rng_state()
    first = task.evaluate(task.model, "valid")
    assert torch.equal(torch.get_rng_state(), state)
    assert task.model.training
    assert task.evaluate(task.model, "valid") == first
    assert {"f1", "precision", "recall", "accuracy", "f1/PER", "errors/missed"} <= first.keys()
    assert task.latest["valid"].all.f1 == first["f1"]
    with pytest.raises(ValueError, match="split 'dev' is unknown: use one of valid, test"):
        task.evaluate(task.model, "dev")


def test_batch_size_of_evaluation_changes_nothing(trained: Trained, corpora: Corpora) -> None:
    sentences = [s.words for s in corpora.train.sentences]
    assert trained.tags(sentences, 1) == trained.tags(sentences, 64)
    assert not trained.model.training


def test_a_type_that_training_lacks_counts_as_missed(
    write, small, caplog: pytest.LogCaptureFixture
) -> None:
    train, other = write("Peter B-PER\nsaid O\n", "train"), write("Oslo B-LOC\nsaid O\n", "other")
    corpora = Corpora.files(train, other, train)
    assert warnings_of(caplog) == [
        f"{other} has 1 entities of type LOC, which the training data lack: they count as missed"
    ]
    vocabulary = corpora.vocabulary()
    task = TaggerTask(Tagger(small(), vocabulary), vocabulary, **vars(corpora))
    scores = task.scores("valid")
    assert scores.types["LOC"].support == 1
    assert scores.types["LOC"].recall == 0


def test_no_entities(write, caplog: pytest.LogCaptureFixture) -> None:
    none, some = write("a O\n", "none"), write("a B-X\n", "some")
    with pytest.raises(ConllError) as error:
        Corpora.files(none, some, some)
    assert str(error.value) == (
        f"{none} holds no entity (every tag is O): there is nothing to learn"
    )
    Corpora.files(some, none, some)
    assert warnings_of(caplog) == [f"{none} holds no entity: its F1 is 0 by definition"]


def test_a_folder_without_data(tmp_path) -> None:
    with pytest.raises(ConllError) as error:
        Corpora.folder(tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path} does not hold the three files of a data set: expected train.conll, dev.conll, "
        "test.conll; or train.txt, valid.txt, test.txt; or eng.train, eng.testa, eng.testb."
    )


def test_schemes_may_differ_between_files(write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = write("a I-X\nb I-X\n", "one")
    two = write("a B-X\nb I-X\n", "two")
    corpora = Corpora.files(one, two, two)
    assert (corpora.train.scheme, corpora.valid.scheme) == ("iob1", "iob2")
    assert corpora.train.in_scheme("bioes") == corpora.valid.in_scheme("bioes")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1 sentence, got 0"),
        ({"reduction": "max"}, "reduction 'max' is unknown: use one of mean, sum"),
        ({"unknown": 2.0}, "unknown must lie in [0, 1], got 2.0: it is a rate"),
    ],
)
def test_refusals(make: Make, arguments: dict, text: str) -> None:
    with pytest.raises(ValueError) as error:
        make(**{f"task_{name}": value for name, value in arguments.items()})
    assert str(error.value) == text
