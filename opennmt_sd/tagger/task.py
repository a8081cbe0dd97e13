"""The tagger as a task for the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from opennmt_sd.tagger import conll
from opennmt_sd.tagger.batches import Batch, Encoded, EpochBatches, plan
from opennmt_sd.tagger.decoding import decode
from opennmt_sd.tagger.model import Tagger
from opennmt_sd.tagger.scores import Scores, score
from opennmt_sd.tagger.vocabulary import Vocabulary
from opennmt_sd.training.task import Step

REDUCTIONS = ("mean", "sum")


class TaggerTask:
    """Sentences in batches of like length; the best checkpoint is that of the best F1.

    Args:
        model: what is trained.
        vocabulary: its words, characters and tags.
        train, valid, test: the data; valid and test may hold tags that training lacks (they
            count as missed). Default: no test data.
        batch_size: sentences of a batch, on each rank.
        eval_batch_size: sentences of a batch in evaluation.
        reduction: the loss is the ``"mean"`` (default; Ma and Hovy) or the ``"sum"`` (NCRF++)
            over a batch's sentences.
        unknown: how often a rare word stands in for the unknown word in training (Lample et
            al.). Default 0.5.
        seed: of the order of the data, and of ``unknown``.
        rank, world_size: of this process.

    Raises:
        ValueError: a number or a choice out of range.
    """

    unit = "sentences"
    score = "f1"
    mode = "max"

    def __init__(
        self,
        model: Tagger,
        vocabulary: Vocabulary,
        *,
        train: conll.Corpus,
        valid: conll.Corpus,
        test: conll.Corpus | None = None,
        batch_size: int = 10,
        eval_batch_size: int = 64,
        reduction: str = "mean",
        unknown: float = 0.5,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1 sentence, got {size}")
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"reduction {reduction!r} is unknown: use one of {', '.join(REDUCTIONS)}"
            )
        if not 0 <= unknown <= 1:
            raise ValueError(f"unknown must lie in [0, 1], got {unknown}: it is a rate")
        self.model, self.vocabulary = model, vocabulary
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.reduction, self.unknown, self.seed = reduction, unknown, seed
        self.rank, self.world_size = rank, world_size
        self.latest: dict[str, Scores] = {}
        layout = model.chars.layout
        self._train = Encoded(vocabulary, _words(train), layout, train.in_scheme(vocabulary.scheme))
        self._splits = {
            name: (
                Encoded(vocabulary, _words(corpus), layout),
                corpus.in_scheme(vocabulary.scheme),
            )
            for name, corpus in (("valid", valid), ("test", test))
            if corpus is not None
        }

    def batches(self, epoch: int) -> EpochBatches:
        """Make the batches of an epoch for this rank."""
        plans = plan(
            self._train.lengths, self.batch_size,
            seed=self.seed, epoch=epoch, rank=self.rank, ranks=self.world_size,
        )  # fmt: skip
        return EpochBatches(self._train, plans, (self.seed, epoch, self.rank), self.unknown)

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: no state goes from batch to batch."""

    def step(self, model: nn.Module, batch: Batch) -> Step:
        """Forward one batch."""
        nats: Tensor = model(batch.to(next(self.model.parameters()).device))
        loss = nats / batch.sentences if self.reduction == "mean" else nats
        return Step(loss, nats.detach(), batch.sentences)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:  # noqa: ARG002
        """Return ``f1``, ``precision``, ``recall`` and ``accuracy`` in percent, ``f1/TYPE`` of each
        type, and ``errors/KIND``, counts.

        Raises:
            ValueError: no such split.
        """
        return self.scores(split).flat()

    def scores(self, split: str) -> Scores:
        """Decode ``"valid"`` or ``"test"`` and score it; :attr:`latest` keeps the result."""
        self.latest[split] = score(self._gold(split)[1], self.tags(split))
        return self.latest[split]

    def tags(self, split: str) -> list[list[str]]:
        """Return the model's tags, in its scheme."""
        return decode(self.model, self.vocabulary, self._gold(split)[0], self.eval_batch_size)

    def _gold(self, split: str) -> tuple[Encoded, list[list[str]]]:
        if split not in self._splits:
            raise ValueError(f"split {split!r} is unknown: use one of {', '.join(self._splits)}")
        return self._splits[split]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def _words(corpus: conll.Corpus) -> list[list[str]]:
    return [sentence.words for sentence in corpus.sentences]
