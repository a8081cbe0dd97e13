"""Where a training is: plain numbers, and the rules that follow from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do on the way.

    Args:
        epochs: passes over the training data.
        max_updates: ends the training earlier; None (default) does not.
        evaluate_every: updates between evaluations; None (default) evaluates after each epoch.
        save_every: updates between checkpoints; None (default) saves after each evaluation only.
        log_every: updates between figures in the logs. Default 50.
        patience: ends the training after so many evaluations without a better score; None
            (default) does not.
        seed: of dropout; each rank has its own from it. Default 1.
        measure: ``"loss"`` (default) or ``"perplexity"``: what is shown of training.
        test: whether the best weights are evaluated on the test data, once, at the end. Default
            False.
        matmul_precision: what ``torch.set_float32_matmul_precision`` was told; None (default):
            nothing, and a training that goes on has its checkpoint's.
    """

    epochs: int
    max_updates: int | None = None
    evaluate_every: int | None = None
    save_every: int | None = None
    log_every: int = 50
    patience: int | None = None
    seed: int = 1
    measure: str = "loss"
    test: bool = False
    matmul_precision: str | None = None


@dataclass
class Position:
    """Where a training is.

    Attributes:
        epoch, index: the next batch is number ``index`` of ``epoch``, both from 0.
        updates: how many there were.
        evaluated: the number of updates at the last evaluation.
        best, best_update: the best score and its update; None before the first evaluation.
        without_gain: evaluations since the best one.
    """

    epoch: int = 0
    index: int = 0
    updates: int = 0
    evaluated: int = 0
    best: float | None = None
    best_update: int = 0
    without_gain: int = 0

    def advance(self, batches: int) -> None:
        """Count one update of an epoch of so many batches."""
        self.updates += 1
        self.index += 1
        if self.index == batches:
            self.epoch, self.index = self.epoch + 1, 0

    def finished(self, plan: Plan) -> bool:
        return (
            self.epoch >= plan.epochs
            or (plan.max_updates is not None and self.updates >= plan.max_updates)
            or (plan.patience is not None and self.without_gain >= plan.patience)
        )

    def evaluation_is_due(self, plan: Plan) -> bool:
        if self.updates == self.evaluated:
            return False
        if plan.evaluate_every is None:
            return self.index == 0
        return self.updates % plan.evaluate_every == 0

    def save_is_due(self, plan: Plan) -> bool:
        return bool(plan.save_every and self.updates and self.updates % plan.save_every == 0)

    def log_is_due(self, plan: Plan) -> bool:
        return self.updates % plan.log_every == 0 or self.index == 0

    def judge(self, score: float, mode: str) -> bool:
        """Take note of an evaluation, better by ``mode`` (min or max). Whether it is the best."""
        self.evaluated = self.updates
        if self.best is None or (score < self.best if mode == "min" else score > self.best):
            self.best, self.best_update, self.without_gain = score, self.updates, 0
            return True
        self.without_gain += 1
        return False
