"""The trainer: one loop for every task.

A resumed training equals one that was never stopped, bit for bit: all that the next update depends
on is in the position, the carried state of the task, the generators, the weights, the optimizer
and the average; a checkpoint holds these, for every rank; and an evaluation leaves no trace.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from opennmt_sd import archive, atomic
from opennmt_sd.training import checkpoint, seeds
from opennmt_sd.training.averaging import Averaging
from opennmt_sd.training.bounded import Bounded, UnansweredError
from opennmt_sd.training.checkpoint import CheckpointError
from opennmt_sd.training.loggers import CSV, Logger, LoggerError
from opennmt_sd.training.meter import Meter, check_finite
from opennmt_sd.training.position import Plan, Position
from opennmt_sd.training.progress import Progress
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.stopping import EvaluationInterrupted, Stopped, StopSignal
from opennmt_sd.training.task import Task

log = logging.getLogger(__name__)

LAST, BEST, METRICS = "last.pt", "best.pt", "metrics.csv"


@dataclass(frozen=True)
class Outcome:
    """What a training has come to.

    Args:
        score: the best score on the validation data.
        update: the number of updates it was reached with.
        updates: how many updates there were.
        checkpoint: the file with the weights that have this score.
        test: the scores of these weights on the test data, where the plan asks for them.
    """

    score: float
    update: int
    updates: int
    checkpoint: Path
    test: dict[str, float]


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
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.task, self.fabric, self.recipe, self.plan = task, fabric, recipe, plan
        self.folder, self.config, self.may_change = folder, config, may_change
        self.constants = dict(constants or {})
        self.loggers = list(loggers) if fabric.is_global_zero else []

        self.raw_optimizer = recipe.optimizer_for(task.model)
        self.model, self.optimizer = fabric.setup(task.model, self.raw_optimizer)
        self.averaging = None
        if recipe.non_monotone is not None:
            self.averaging = Averaging(task.model, non_monotone=recipe.non_monotone, mode=task.mode)
        self.at = Position()
        self.batches: Sequence[Any] = ()
        self.meter = Meter(fabric, plan.measure)
        self.progress = Progress(unit=task.unit, shown=fabric.is_global_zero)
        self.stop = StopSignal()
        self.rng: Mapping[str, Any] | None = None  # of a resumed training

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
        with self._logging(), self.stop:
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
        if self.recipe.clip is not None:
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
        """Scores on ``"valid"`` or ``"test"``, without a trace; collective."""
        self.progress.clear()
        alone = self.fabric.world_size == 1  # else the others would wait for who was interrupted
        with (
            self.averaging.applied() if self.averaging and split == "valid" else nullcontext(),
            _without_trace(self.task, self.model),
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
        if "ranks" not in state:
            raise CheckpointError(
                f"{path} holds weights and no state of a training: name a last.pt or best.pt"
            )
        self._check_same(path, state)
        at = Position(**state["position"])
        best = path.parent / BEST
        if at.best is not None and not best.exists():
            if at.best_update != at.updates:
                raise CheckpointError(
                    f"{path} goes with the best weights so far, those of update "
                    f"{at.best_update:,}, but there is no {best}: put it there"
                )
            best = path  # holds them itself
        self.task.model.load_state_dict(state["model"])
        self.raw_optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.averaging:
            self.averaging.load_state_dict(state["averaging"])
        self.at = at
        rank = state["ranks"][self.fabric.global_rank]
        self.task.load_state_dict(rank["carried"])
        self.meter.load_state_dict(rank["meter"])
        self.rng = rank["rng"]
        if self.fabric.is_global_zero:
            self._take_along({BEST: best, METRICS: path.parent / METRICS, LAST: path})

    def _take_along(self, sources: Mapping[str, Path]) -> None:
        """What was reached and logged in another folder belongs to a training that goes on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            here = self.folder / name
            # A last.pt of this very folder stays until the next one is written, if it is whole.
            keep = here.exists() and source.parent.samefile(self.folder)
            if keep and name == LAST:
                keep = archive.is_whole(here)
            if source.exists() and not keep:
                atomic.copy(source, here)

    def _check_same(self, path: Path, state: Mapping[str, Any]) -> None:
        changed = checkpoint.differences(state["config"], self.config, ignore=self.may_change)
        changed += checkpoint.differences(state["constants"], self.constants)
        if changed:
            raise CheckpointError(
                f"{path} belongs to a training with other settings:\n  "
                + "\n  ".join(changed)
                + "\nGive it the same ones, or begin anew in another folder"
            )
        if len(state["ranks"]) != self.fabric.world_size:
            raise CheckpointError(
                f"{path} holds the state of {len(state['ranks'])} processes, this run has "
                f"{self.fabric.world_size}: start as many (trainer.devices, or torchrun)"
            )

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
            "position": asdict(self.at),
            "ranks": self._gathered(own),
            "config": self.config,
            "constants": self.constants,
        }
        for name in names:
            if self.fabric.is_global_zero:
                checkpoint.write(self.folder / name, state)
        self.fabric.barrier()

    def _gathered(self, own: Any) -> list[Any]:
        """What each rank gives, on rank 0; collective."""
        if self.fabric.world_size == 1:
            return [own]
        there: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(there, own)
        return there

    def _stop_if_told(self) -> None:
        """End, with a checkpoint, where a rank has received a signal; collective."""
        number = self.stop.received
        if self.fabric.world_size > 1:
            flag = torch.tensor(number, device=self.fabric.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            number = int(flag)
        if number:
            self.progress.close()
            self._save(LAST)
            raise Stopped(number, self.folder / LAST, self.at.updates)

    def _log(self, kind: str, figures: Mapping[str, float]) -> None:
        named = {f"{kind}/{name}": value for name, value in figures.items()}
        for logger in list(self.loggers):
            try:
                logger.log(self.at.updates, {"epoch": self._epochs(), **named})
            except Exception as error:
                if not isinstance(logger, Bounded):
                    raise
                # A server that is away for a while must not end a training of days.
                self.loggers.remove(logger)
                log.warning(f"{logger.name} fails and is left out from here on: {error}")

    def _epochs(self) -> float:
        """Epochs done, with their fraction."""
        return self.at.epoch + (self.at.index / len(self.batches) if self.at.index else 0.0)

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Loggers begin, and end however it ends."""
        wanted, self.loggers = self.loggers, []
        failed = True
        try:
            for logger in wanted:
                self._start_logger(logger)
            yield
            failed = False
        except Stopped:
            failed = False
            raise
        finally:
            self.progress.close()
            for logger in self.loggers:
                try:
                    logger.close(failed)
                except Exception as error:
                    if not isinstance(logger, Bounded):
                        raise
                    log.warning(f"{logger.name} cannot end its run: {error}")

    def _start_logger(self, logger: Logger) -> None:
        if isinstance(logger, CSV):  # a file of ours: it cannot be left out
            logger.start(self.at.updates, self.config)
            self.loggers.append(logger)
            return
        bounded = Bounded(logger)
        try:
            bounded.start(self.at.updates, self.config)
        except UnansweredError as error:
            log.warning(
                f"{bounded.name} is left out: {error}. Is its server away? {METRICS} has all of it"
            )
        except Exception as error:
            raise LoggerError(
                f"{bounded.name} cannot start: {error}. Leave it out, or mend it"
            ) from error
        else:
            self.loggers.append(bounded)


@contextmanager
def _without_trace(task: Task, model: nn.Module) -> Iterator[None]:
    """What is carried, and the generators, come out as they went in; the model in training."""
    carried, rng = checkpoint.plain(task.state_dict()), seeds.rng_state()
    try:
        with torch.no_grad():
            yield
    finally:
        task.load_state_dict(carried)
        seeds.set_rng_state(rng)
        model.train()
