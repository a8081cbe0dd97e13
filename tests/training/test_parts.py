"""The small parts of the trainer: schedules, seeds, averaging, position, figures, plot."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from opennmt_sd.training import seeds
from opennmt_sd.training.averaging import Averaging
from opennmt_sd.training.meter import DivergedError
from opennmt_sd.training.plots import plot_curves
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.reports import METRICS
from opennmt_sd.training.schedules import constant, inverse, step_down


def test_schedules() -> None:
    medium = step_down(constant_epochs=6, factor=1.2)  # Zaremba medium: 6 epochs at 1
    assert [medium(epoch) for epoch in (0, 5, 6, 7)] == [1, 1, 1.2**-1, 1.2**-2]
    assert [inverse(decay=0.05)(epoch) for epoch in (0, 1, 20)] == [1, 1 / 1.05, 0.5]
    assert constant(99) == 1


def test_seeds_differ_by_every_part() -> None:
    found = {seeds.derive(s, "rank", r) for s in (1, 2, 11) for r in (0, 1, 10)}
    assert len(found) == 9
    assert all(0 <= seed < 2**32 for seed in found)


def test_generators_go_on_where_they_were() -> None:
    import numpy as np

    def draw() -> list[float]:
        return [float(torch.rand(())), random.random(), float(np.random.rand())]

    seeds.seed_all(5)
    first = draw()
    state = seeds.rng_state()
    later = draw()
    seeds.set_rng_state(state)
    assert draw() == later
    seeds.seed_all(5)
    assert draw() == first


def test_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match=r"^optimizer 'lion' is unknown: use one of sgd, adam$"):
        Recipe("lion")


def test_non_monotone_trigger() -> None:
    # Fires where a score is worse than the best of those more than 2 evaluations ago.
    averaging = Averaging(nn.Linear(1, 1), non_monotone=2, mode="min")
    assert [averaging.scored(score) for score in (9, 8, 7, 8, 8.5, 6, 9)] == [
        False, False, False, False, True, False, False,
    ]  # fmt: skip
    upwards = Averaging(nn.Linear(1, 1), non_monotone=0, mode="max")
    assert [upwards.scored(score) for score in (1, 2, 1.5)] == [False, False, True]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1, 1, bias=False)
        self.b = nn.Linear(1, 1, bias=False)
        self.b.weight = self.a.weight


def test_average_is_the_mean_of_all_weights_since_the_trigger() -> None:
    model = Tied()
    averaging = Averaging(model, non_monotone=0, mode="min")
    averaging.scored(1)
    averaging.scored(2)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(model.a.weight, value)
        averaging.update()
    with averaging.applied():
        assert (model.a.weight.item(), model.b.weight.item()) == (3, 3)
    assert model.a.weight.item() == 6
    saved = averaging.state_dict()["average"]
    assert {name: value.item() for name, value in saved.items()} == {"a.weight": 3, "b.weight": 3}


def test_learning_rate_follows_the_schedule_and_the_batch(run) -> None:
    part = run("a", epochs=2)
    seen = []
    step = part.trainer.raw_optimizer.step

    def noting(*args, **kwargs):
        seen.append(part.trainer.raw_optimizer.param_groups[0]["lr"])
        return step(*args, **kwargs)

    part.trainer.raw_optimizer.step = noting
    part.trainer.optimizer.optimizer.step = noting
    part.trainer.recipe = Recipe(lr=2.0, schedule=step_down(constant_epochs=1, factor=4))
    part.go()
    scales = [1 - 0.1 * index for index in range(5)]  # those of the fake task
    assert seen == pytest.approx([2 * s for s in scales] + [0.5 * s for s in scales])


def test_early_stopping(run) -> None:
    part = run("a", epochs=50, patience=2)
    scores = iter([5, 4, 3, 3.5, 3, 1])
    part.task.evaluate = lambda model, split: {"loss": next(scores)}
    outcome = part.go()
    assert (outcome.score, outcome.update, outcome.updates) == (3, 15, 25)


def test_the_best_weights_are_left_in_the_model_and_tested_once(run) -> None:
    part = run("a", epochs=3, test=True)
    calls = []
    found = {"valid": iter([2, 1, 3]), "test": iter([7])}

    def evaluate(model, split):
        calls.append((split, part.task.model.out.weight.clone()))
        return {"loss": next(found[split])}

    part.task.evaluate = evaluate
    outcome = part.go()
    assert [split for split, _ in calls] == ["valid", "valid", "valid", "test"]
    assert torch.equal(calls[1][1], calls[3][1])
    assert (outcome.score, outcome.test) == (1, {"loss": 7})
    assert part.rows()[-1]["test/loss"] == 7


def test_a_diverged_training_ends_and_keeps_its_checkpoint(run) -> None:
    part = run("a", epochs=9)
    step = part.task.step

    def diverging(model, batch):
        found = step(model, batch)
        scale = math.nan if len(part.task.seen) == 8 else 1
        return type(found)(found.loss, found.nats * scale, found.units)

    part.task.step = diverging
    with pytest.raises(DivergedError) as error:
        part.go()
    assert str(error.value) == (
        "the loss is nan at update 8: the training has diverged. Lower the learning rate "
        "(optim.lr) or the largest norm of a gradient (optim.clip). Checkpoints of before are "
        "untouched"
    )
    assert part.last()["position"]["updates"] == 5


def test_no_batches(run) -> None:
    part = run("a")
    part.task.batches = lambda epoch: []
    with pytest.raises(ValueError, match="the training data are none, or others than before"):
        part.go()


@pytest.mark.parametrize("score", ["loss", "f1"])
def test_curves_are_drawn(run, tmp_path: Path, score) -> None:
    from matplotlib.image import imread

    part = run("a")
    part.task.evaluate = lambda model, split: {"loss": 1.0, "f1": 50.0}
    part.go()
    picture = tmp_path / "curves.png"
    plot_curves(part.folder / METRICS, picture, measure="loss", score=score, mode="min")
    pixels = imread(picture)
    assert pixels.shape[:2] == ((720, 840) if score == "loss" else (960, 840))
    assert len({tuple(colour) for colour in pixels[::5, ::5].reshape(-1, 4)}) > 10  # not blank
