"""A training that was stopped and goes on equals one that was never stopped, bit for bit.

An epoch of the fake task has 5 batches: updates 5, 10, ... end one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from opennmt_sd import DropoutPattern, MaskedLinear
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import choices
from opennmt_sd.training import checkpoint
from opennmt_sd.training.checkpoint import CheckpointError
from opennmt_sd.training.resuming import BEST, LAST
from opennmt_sd.training.stopping import Stopped


def stop_after(run, updates: int, number: int = signal.SIGTERM) -> None:
    """Let a run receive a signal during its update number ``updates``."""
    step = run.task.step

    def signalling(model, batch):
        if len(run.task.seen) == updates - 1:
            os.kill(os.getpid(), number)
        return step(model, batch)

    run.task.step = signalling


@pytest.mark.parametrize("recipe", ["sgd", "nt_asgd", "adam"])
@pytest.mark.parametrize("stop", [1, 4, 5, 6, 10, 13])
def test_stopped_and_resumed_equals_never_stopped(run, differences, recipe, stop) -> None:
    whole = run("whole", recipe)
    expected = whole.go()
    first = run("parts", recipe)
    stop_after(first, stop)
    with pytest.raises(Stopped) as stopped:
        first.go()
    assert stopped.value.code == 143
    assert first.last()["position"]["updates"] == stop
    second = run("parts", recipe)
    outcome = second.go(resume=True)
    assert differences(whole.last(), second.last()) == []
    assert whole.rows() == second.rows()
    assert whole.speedless() == second.speedless()
    assert (outcome.score, outcome.update) == (expected.score, expected.update)
    assert first.task.seen + second.task.seen == whole.task.seen
    best = [checkpoint.read(run.folder / BEST) for run in (whole, second)]
    assert differences(*best) == []


def test_stopped_often_with_evaluations_and_saves_within_an_epoch(run, differences) -> None:
    plan = {"evaluate_every": 3, "save_every": 2}
    whole = run("whole", "nt_asgd", **plan)
    whole.go()
    assert whole.last()["averaging"]["average"]  # the trigger has fired
    for resume in [False, *[True] * 30]:
        part = run("parts", "nt_asgd", **plan)
        stop_after(part, 1)
        try:
            part.go(resume)
        except Stopped:
            continue
        break
    assert differences(whole.last(), part.last()) == []
    assert whole.rows() == part.rows()


@pytest.mark.parametrize("cut", [3, 5, 7])
def test_cut_off_by_max_updates_and_continued_equals_never_cut_off(run, differences, cut) -> None:
    whole = run("whole", max_updates=12)
    whole.go()
    run("parts", max_updates=cut).go()
    part = run("parts", max_updates=12)
    part.go(resume=True)
    assert differences(whole.last(), part.last()) == []


def test_what_died_since_the_last_checkpoint_is_trained_again(run, differences) -> None:
    whole = run("whole", save_every=4)
    whole.go()
    died = run("parts", save_every=4)
    step = died.task.step

    def dying(model, batch):
        if len(died.task.seen) == 11:
            raise RuntimeError("power cut")
        return step(model, batch)

    died.task.step = dying
    with pytest.raises(RuntimeError, match="power cut"):
        died.go()
    assert max(row["update"] for row in died.rows()) == 10
    part = run("parts", save_every=4)
    part.go(resume=True)
    assert part.task.seen[0] == (2, 0)  # the checkpoint of the evaluation after update 10
    assert differences(whole.last(), part.last()) == []
    assert whole.rows() == part.rows()


def test_a_signal_ends_an_evaluation_at_once_and_it_is_made_again(run, differences) -> None:
    whole = run("whole", "nt_asgd")
    whole.go()
    first = run("parts", "nt_asgd")
    evaluate = first.task.evaluate

    def long(model, split):
        scores = evaluate(model, split)
        if first.task.evaluations == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal has not ended the evaluation")
        return scores

    first.task.evaluate = long
    with pytest.raises(Stopped):
        first.go()
    assert first.last()["position"]["updates"] == 15
    assert first.last()["position"]["evaluated"] == 10
    second = run("parts", "nt_asgd")
    second.go(resume=True)
    assert second.task.evaluations == 2  # of updates 15 and 20
    assert differences(whole.last(), second.last()) == []


def test_a_finished_training_has_nothing_more_to_do(run) -> None:
    first = run("whole", test=True)
    outcome = first.go()
    again = run("whole", test=True)
    assert again.go(resume=True) == outcome
    assert again.task.seen == []


def test_more_epochs_may_follow(run, differences) -> None:
    whole = run("whole", epochs=6)
    whole.go()
    run("parts", epochs=4).go()
    longer = run("parts", epochs=6)
    longer.go(resume=True)
    assert differences(whole.last(), longer.last()) == []


def test_resuming_into_another_folder_takes_the_best_and_the_figures_along(run, tmp_path) -> None:
    first = run("first")
    stop_after(first, 13)
    with pytest.raises(Stopped):
        first.go()
    before = (tmp_path / "first" / LAST).read_bytes()
    second = run("second")
    second.trainer.resume(tmp_path / "first" / LAST)
    assert (tmp_path / "second" / BEST).exists()
    second.trainer.run()
    whole = run("whole")
    whole.go()
    assert second.rows() == whole.rows()
    assert (tmp_path / "first" / LAST).read_bytes() == before


def test_the_best_weights_must_come_along(run, tmp_path) -> None:
    first = run("first", max_updates=13, evaluate_every=1)
    first.go()
    path = tmp_path / "first" / LAST
    state = torch.load(path, weights_only=True)
    (tmp_path / "first" / BEST).unlink()
    behind = {**state["position"], "best_update": 7}
    checkpoint.write(path, {**state, "position": behind})
    assert refused(run("second"), tmp_path / "first") == (
        f"{path} goes with the best weights so far, those of update 7, but there is no "
        f"{tmp_path / 'first' / BEST}: put it there"
    )
    itself = {**state["position"], "best_update": 13}
    checkpoint.write(path, {**state, "position": itself})
    third = run("third", max_updates=13)
    third.trainer.resume(path)  # it is the best one itself
    assert third.trainer.run().update == 13


def refused(run, folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        run.trainer.resume(folder / LAST)
    return str(error.value)


def test_another_training_is_refused(run, tmp_path) -> None:
    run("sgd", max_updates=1).go()
    path = tmp_path / "sgd" / LAST
    assert refused(run("adam", "adam"), tmp_path / "sgd") == (
        f"{path} belongs to a training with other settings:\n"
        "  optim: sgd there, adam here\n"
        "Give it the same ones, or begin anew in another folder"
    )


def test_other_data_are_refused(run, tmp_path) -> None:
    run("a", max_updates=1).go()
    other = run("b")
    other.trainer.constants["width"] = 9
    assert "\n  width: 8 there, 9 here\n" in refused(other, tmp_path / "a")


def test_another_number_of_processes_is_refused(run, tmp_path) -> None:
    run("a", max_updates=1).go()
    path = tmp_path / "a" / LAST
    state = torch.load(path, weights_only=True)
    checkpoint.write(path, {**state, "ranks": state["ranks"] * 2})
    assert refused(run("b"), tmp_path / "a") == (
        f"{path} holds the state of 2 processes, this run has 1: start as many "
        "(trainer.devices, or torchrun)"
    )


def test_evaluation_leaves_no_trace(run, differences) -> None:
    rare, often = run("rare"), run("often", evaluate_every=1)
    rare.go()
    often.go()
    for part in ("model", "optimizer", "ranks"):
        assert differences(rare.last()[part], often.last()[part]) == []


def test_ctrl_c_stops_with_a_checkpoint_and_another_exit_code(run) -> None:
    part, before = run("parts"), signal.getsignal(signal.SIGINT)  # ignored in a background process
    stop_after(part, 2, signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        part.go()
    assert stopped.value.code == 130
    assert str(stopped.value) == (f"stopped by SIGINT at update 2; {part.folder / LAST} is written")
    assert signal.getsignal(signal.SIGINT) is before


def test_what_was_measured_is_not_measured_again(run, no_choices) -> None:
    """A resume takes the choices from the checkpoint: else it would not be bit for bit."""
    made = {"recurrence": True, "gathered": False}
    calibration.take(made)
    run("run", epochs=1).go()
    assert run("run").last()["calibration"] == made
    choices.forget()
    run("run", epochs=2).go(resume=True)
    assert calibration.in_force() == made
    assert run("run").last()["calibration"] == made


@pytest.mark.parametrize("held", [None, "damaged"])
def test_a_checkpoint_without_choices(run, no_choices, caplog, held: str | None) -> None:
    run("run", epochs=1).go()
    path = run("run").folder / LAST
    state = torch.load(path, weights_only=True)
    del state["calibration"]
    torch.save(state if held is None else {**state, "calibration": held}, path)
    caplog.clear()
    run("run", epochs=2).go(resume=True)
    assert run("run").last()["calibration"] == {}
    assert ("choices by measurement are damaged" in caplog.text) is (held is not None)


class FixedNet(nn.Module):
    """As the fake task's, but its output leaves out what all steps drop, or masks it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 8)
        self.out = MaskedLinear(8, 8, dropout=DropoutPattern(0.5, time="fixed"))

    def forward(self, x: torch.Tensor, h: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        y, h = self.cell(x, h)
        return (self.out(y) - x).pow(2).mean(), h


@pytest.mark.parametrize("travels", [True, False])
def test_a_resume_where_another_way_would_be_faster_is_bit_for_bit(
    run, differences, fake_card, monkeypatch, travels: bool
) -> None:
    """On a machine that has measured nothing: both ways are right, and round in their own way."""
    monkeypatch.setattr(sys.modules["fake"], "Net", FixedNet)
    whole = run("whole", max_updates=12)
    whole.go()
    run("parts", max_updates=7).go()
    assert list(calibration.in_force().values()) == [True]
    choices.forget()
    for file in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.json"):
        file.unlink()
    fake_card.ours = 9.0
    part = run("parts", max_updates=12)
    if not travels:
        monkeypatch.setattr(calibration, "take", lambda _: None)
    part.go(resume=True)
    assert (differences(whole.last(), part.last()) == []) is travels
    assert (differences(whole.last()["model"], part.last()["model"]) == []) is travels
