"""The trainer: one loop for every task.

A resumed training equals one that was never stopped, bit for bit: all that the next update depends
on is in the position, the carried state of the task, the generators, the weights, the optimizer
and the average; a checkpoint holds these, for every rank; and an evaluation leaves no trace.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from opennmt_sd.ops import calibration
from opennmt_sd.training import checkpoint, seeds
from opennmt_sd.training.averaging import Averaging
from opennmt_sd.training.loggers import Logger
from opennmt_sd.training.meter import Meter, check_finite
from opennmt_sd.training.outcome import Outcome
from opennmt_sd.training.position import Plan, Position
from opennmt_sd.training.progress import Progress
from opennmt_sd.training.ranks import gathered, largest
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.reports import Reports
from opennmt_sd.training.resuming import BEST, LAST, best_with, check_same, take_along
from opennmt_sd.training.sgd import ClippedSGD, rows_alone
from opennmt_sd.training.stopping import EvaluationInterrupted, Stopped, StopSignal
from opennmt_sd.training.task import Task, without_trace

if TYPE_CHECKING:  # whoever gives a Fabric has imported it
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class Trainer:
    """Trains a task; writes ``last.pt`` and ``best.pt`` into a folder.

    Args:
        task: the model with its data and scores; on every rank the same but for its batches.
        fabric: launched already.
        recipe: how the weights are changed.
        plan: how long, and what happens on the way.
        folder: where checkpoints go; the same on every rank.
        loggers: where figures go; used on rank 0.
        config: plain values, kept in checkpoints; a resumed training must have the same.
        may_change: dotted names in ``config`` that may differ all the same.
        added: dotted names in ``config`` and ``constants`` that older checkpoints lack, and the
            values that they were written with all the same.
        constants: plain values that belong to the weights (a vocabulary), kept in checkpoints.
    """

    def __init__(
        self,
        task: Task,
        *,
        fabric: Fabric,
        recipe: Recipe,
        plan: Plan,
        folder: Path,
        loggers: Sequence[Logger],
        config: Mapping[str, Any],
        may_change: Sequence[str] = (),
        added: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.task, self.fabric, self.recipe, self.plan = task, fabric, recipe, plan
        self.folder, self.config, self.may_change = folder, config, may_change
        self.added, self.constants = dict(added or {}), dict(constants or {})
        self.loggers = list(loggers) if fabric.is_global_zero else []

        self.raw_optimizer = recipe.optimizer_for(task.model, fabric.device)
        self.clips_itself = isinstance(self.raw_optimizer, ClippedSGD)
        self.model, self.optimizer = fabric.setup(task.model, self.raw_optimizer)
        self.averaging = None
        if recipe.non_monotone is not None:
            self.averaging = Averaging(task.model, non_monotone=recipe.non_monotone, mode=task.mode)
        self.at = Position()
        self.batches: Sequence[Any] = ()
        self.meter = Meter(fabric, plan.measure)
        self.progress = Progress(unit=task.unit, shown=fabric.is_global_zero)
        self.reports = Reports()
        self.stop = StopSignal()
        self.rng: Mapping[str, Any] | None = None  # of a resumed training
        self.matmul_precision = plan.matmul_precision

    def run(self) -> Outcome:
        """Train until the plan is fulfilled; the model is left with the best weights.

        Raises:
            LoggerError: a tracker cannot start.
            SaveError: a checkpoint cannot be written; the one before it is untouched.
            DivergedError: the loss or the score is infinite or not a number.
            Stopped: SIGTERM or Ctrl-C came; ``last.pt`` is written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.rng is None:
            seeds.seed_all(seeds.derive(self.plan.seed, "rank", self.fabric.global_rank))
        else:
            seeds.set_rng_state(self.rng)
        with (
            self.reports.to(self.loggers, self.at.updates, self.config),
            closing(self.progress),
            self.stop,
            # Several ranks add up gradients that lie side by side, as they are.
            rows_alone(self.task.model)
            if self.clips_itself and self.fabric.world_size == 1
            else nullcontext(),
        ):
            if self.at.index:  # resumed within an epoch
                self._open_epoch()
            while True:
                self._between_updates()
                if self.at.finished(self.plan):
                    break
                self._update(self._next_batch())
            try:
                return self._outcome()
            except EvaluationInterrupted:  # all that was trained is saved already
                raise Stopped(self.stop.received, self.folder / LAST, self.at.updates) from None

    def _between_updates(self) -> None:
        # Everything that may happen between two updates happens here, in this order, so that a
        # checkpoint never falls between an evaluation and what follows from it.
        try:
            if self.at.evaluation_is_due(self.plan):
                score = self._evaluate("valid")[self.task.score]
                better = self.at.judge(score, self.task.mode)
                if self.averaging and self.averaging.scored(score):
                    log.info(f"Averaging of the weights begins at update {self.at.updates}")
                # The best one first: killed between the two, the evaluation is made again.
                self._save(BEST, LAST) if better else self._save(LAST)
            elif self.at.save_is_due(self.plan):
                self._save(LAST)
        except EvaluationInterrupted:
            pass  # who resumes makes it again
        self._stop_if_told()

    def _open_epoch(self) -> None:
        at = self.at
        self.batches = self.task.batches(at.epoch)
        if at.index >= len(self.batches):
            raise ValueError(
                f"epoch {at.epoch + 1} has {len(self.batches)} batches, number {at.index + 1} is "
                "next: the training data are none, or others than before"
            )
        name = f"Epoch {at.epoch + 1}/{self.plan.epochs}"
        self.progress.start_epoch(name, done=at.index, total=len(self.batches))

    def _next_batch(self) -> Any:
        if self.at.index == 0:
            self._open_epoch()
            self.task.start_epoch(self.at.epoch)
            self.meter.start_epoch()
        return self.batches[self.at.index]

    def _update(self, batch: Any) -> None:
        step = self.task.step(self.model, batch)
        self.fabric.backward(step.loss)
        if self.recipe.clip is not None and not self.clips_itself:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False
            )
        lr = self.recipe.lr * self.recipe.schedule(self.at.epoch)
        for group in self.raw_optimizer.param_groups:
            group["lr"] = lr * step.lr_scale
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaging:
            self.averaging.update()
        self.meter.count(step)
        self.at.advance(len(self.batches))
        self.progress.advance()
        if self.at.log_is_due(self.plan):
            figures, speed = self.meter.row(self.at.updates)
            measure = self.plan.measure
            self.progress.show(speed=speed, text=f"{measure} {figures[measure]:.4g}, lr {lr:.3g}")
            self._log("train", {**figures, "lr": lr, f"{self.task.unit}_per_s": speed})

    def _evaluate(self, split: str) -> dict[str, float]:
        """Score ``"valid"`` or ``"test"``, without a trace; collective."""
        self.progress.clear()
        alone = self.fabric.world_size == 1  # else the others would wait for who was interrupted
        with (
            self.averaging.applied() if self.averaging and split == "valid" else nullcontext(),
            without_trace(self.task, self.model),
            self.stop.interrupts_evaluation() if alone else nullcontext(),
        ):
            scores: dict[str, float] = self.fabric.broadcast(self.task.evaluate(self.model, split))
        check_finite(f"{split} {self.task.score}", scores[self.task.score], self.at.updates)
        self._log(split, scores)
        whole = {name: value for name, value in scores.items() if "/" not in name}  # not f1/PER
        trained = self.meter.epoch_figures()[self.plan.measure]
        where = f"Epoch {self._epochs():.4g}, update {self.at.updates:,}: "
        where += f"train {self.plan.measure} {trained:.5g}; valid"
        log.info(
            f"{'Best weights: test' if split == 'test' else where} "
            + ", ".join(f"{k} {v:.5g}" for k, v in whole.items())
        )
        self.meter.restart_clock()
        return scores

    def _outcome(self) -> Outcome:
        if self.at.evaluated != self.at.updates:
            # Cut off between two evaluations. `last.pt` does not know of this one: a training that
            # goes on from there equals one that was never cut off.
            self._save(LAST)
            if self.at.judge(self._evaluate("valid")[self.task.score], self.task.mode):
                self._save(BEST)
        path = self.folder / BEST
        best = checkpoint.read(path)
        self.task.model.load_state_dict(checkpoint.weights(best))
        test = self._evaluate("test") if self.plan.test else {}
        position = best["position"]
        return Outcome(
            position["best"], position["best_update"], self.at.updates, checkpoint=path, test=test
        )

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint instead of the beginning. Before :meth:`run`, on every rank.

        Raises:
            CheckpointError: it is damaged, not of this training, or without its best weights.
        """
        state = checkpoint.read(path)
        with checkpoint.understood(path):
            self._resume(path, state)
        log.info(f"Resumed from {path}: epoch {self.at.epoch + 1}, update {self.at.updates:,}")

    def _resume(self, path: Path, state: Mapping[str, Any]) -> None:
        check_same(
            path, state, config=self.config, may_change=self.may_change, added=self.added,
            constants=self.constants, world_size=self.fabric.world_size,
        )  # fmt: skip
        at = Position(**state["position"])
        best = best_with(path, at)
        self.task.model.load_state_dict(state["model"])
        self.raw_optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.averaging:
            self.averaging.load_state_dict(state["averaging"])
        self.at = at
        calibration.take(state.get("calibration"))  # older ones have none
        rank = state["ranks"][self.fabric.global_rank]
        self.task.load_state_dict(rank["carried"])
        self.meter.load_state_dict(rank["meter"])
        self.rng = rank["rng"]
        kept = state.get("matmul_precision")  # older ones have none
        if kept and self.matmul_precision is None:
            torch.set_float32_matmul_precision(kept)
            self.matmul_precision = kept
        if self.fabric.is_global_zero:
            take_along(path, best, self.folder)

    def _save(self, *names: str) -> None:
        self.meter.check(self.at.updates)
        own = {
            "carried": checkpoint.plain(self.task.state_dict()),
            "meter": self.meter.state_dict(),
            "rng": seeds.rng_state(),
        }
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.raw_optimizer.state_dict(),
            "averaging": self.averaging.state_dict() if self.averaging else None,
            "precision": self.fabric.strategy.precision.state_dict(),
            "matmul_precision": self.matmul_precision,
            "position": asdict(self.at),
            "calibration": calibration.in_force(),
            "ranks": gathered(self.fabric, own),
            "config": self.config,
            "constants": self.constants,
        }
        for name in names:
            if self.fabric.is_global_zero:
                checkpoint.write(self.folder / name, state)
        self.fabric.barrier()

    def _stop_if_told(self) -> None:
        """End, with a checkpoint, where a rank has received a signal; collective."""
        number = largest(self.fabric, self.stop.received)
        if number:
            self.progress.close()
            self._save(LAST)
            raise Stopped(number, self.folder / LAST, self.at.updates)

    def _log(self, kind: str, figures: Mapping[str, float]) -> None:
        named = {f"{kind}/{name}": value for name, value in figures.items()}
        self.reports.log(self.at.updates, {"epoch": self._epochs(), **named})

    def _epochs(self) -> float:
        """Return the epochs done, with their fraction."""
        return self.at.epoch + (self.at.index / len(self.batches) if self.at.index else 0.0)
