"""The language model as a task for the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from opennmt_sd.lm.batches import Batch, Batches, random_segments, segments, streams
from opennmt_sd.lm.data import Corpus
from opennmt_sd.lm.evaluation import Evaluation
from opennmt_sd.lm.model import State
from opennmt_sd.training.task import Step


class LMTask:
    """Truncated back-propagation over parallel streams; the state is carried from batch to batch.

    Args:
        model: takes (ids, targets, state, scale=) and gives an ``Output``.
        corpus: what it learns.
        batch_size: B, streams of each rank.
        unroll: T, steps of a segment.
        random_unroll: draw each segment's length around ``unroll``, and scale the learning rate
            with it (AWD-LSTM). Default False.
        sum_over_time: the loss is summed over the steps and averaged over the batch, as in
            Zaremba et al., whose learning rates and norms to clip at fit this. Default False: the
            mean over both (AWD-LSTM).
        seed: of the random lengths.
        rank, world_size: of this process; each rank reads its own streams.
        eval_batch_size, test_batch_size: streams of one pass over ``valid`` and ``test``. 1 is
            one pass in order, as published figures have it; a few streams are faster and lose
            context at as many places. Default 10 and 1.

    Raises:
        CorpusError: a text is too short for its batch. ValueError: a number out of range.
    """

    score = "perplexity"
    mode = "min"

    def __init__(
        self,
        model: nn.Module,
        corpus: Corpus,
        *,
        batch_size: int = 20,
        unroll: int = 35,
        random_unroll: bool = False,
        sum_over_time: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        eval_batch_size: int = 10,
        test_batch_size: int = 1,
    ) -> None:
        if unroll < 1:
            raise ValueError(f"unroll must be at least 1 step, got {unroll}")
        self.model, self.corpus = model, corpus
        self.unroll, self.random_unroll = unroll, random_unroll
        self.sum_over_time, self.seed = sum_over_time, seed
        vocabulary = corpus.vocabulary
        self.unit = vocabulary.unit
        self._train = streams(
            corpus.train,
            batch_size,
            rank,
            world_size,
            name="the training text",
            setting="data.batch_size",
            unit=self.unit,
        )
        self._splits = {
            split: Evaluation(
                text, streams_of, unroll, level=vocabulary.level, name=name, setting=setting
            )
            for split, text, streams_of, name, setting in (
                (
                    "valid",
                    corpus.valid,
                    eval_batch_size,
                    "the validation text",
                    "data.eval_batch_size",
                ),
                ("test", corpus.test, test_batch_size, "the test text", "data.test_batch_size"),
            )
            if text is not None
        }
        self._state: State | None = None

    def batches(self, epoch: int) -> Batches:
        """Return all batches of an epoch for this rank."""
        length = len(self._train)
        if self.random_unroll:
            plan = random_segments(length, self.unroll, self.seed, epoch)
        else:
            plan = segments(length, self.unroll)
        return Batches(self._train, plan)

    def start_epoch(self, epoch: int) -> None:  # noqa: ARG002 - every epoch starts alike
        """Begin with a state of zeros."""
        self._state = None

    def step(self, model: nn.Module, batch: Batch) -> Step:
        """Forward one batch from the state the last one left."""
        device = next(self.model.parameters()).device
        ids, targets = batch.ids.to(device), batch.targets.to(device)
        T, B = ids.shape
        scale = float(T) if self.sum_over_time else 1.0
        loss, nats, self._state = model(ids, targets, self._state, scale=scale)
        lr_scale = T / self.unroll if self.random_unroll else 1.0
        return Step(loss, nats, units=T * B, lr_scale=lr_scale)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Score ``"valid"`` or ``"test"`` in one pass; see :meth:`Evaluation.run`.

        Raises:
            ValueError: no such split.
        """
        if split not in self._splits:
            raise ValueError(f"split {split!r} is unknown: use one of {', '.join(self._splits)}")
        return self._splits[split].run(model, next(self.model.parameters()).device)

    def state_dict(self) -> dict[str, Any]:
        """Return the carried state, ``hidden``: h, and an LSTM's c, of a stack; None at an epoch's
        start."""
        return {"hidden": None if self._state is None else [list(of) for of in self._state]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        hidden = state["hidden"]
        device = next(self.model.parameters()).device
        self._state = None if hidden is None else tuple(
            tuple(s.to(device) for s in of) for of in hidden
        )  # fmt: skip
