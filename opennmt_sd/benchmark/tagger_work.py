"""A tagger that trains and predicts: the case, what it learns from, and its truth."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.benchmark.sgd_update import Update
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.by_name import STRUCTURED
from opennmt_sd.tagger.batches import Batch, Encoded, in_order, plan
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.decoding import decode
from opennmt_sd.tagger.model import Tagger, TaggerConfig
from opennmt_sd.tagger.reference import PlainTagger
from opennmt_sd.tagger.vocabulary import Vocabulary
from opennmt_sd.training.recipe import Recipe

BATCH, EVAL_BATCH = 10, 64
CLIP = 5.0
RECIPE = Recipe(lr=0.015, momentum=0.9, clip=CLIP)


@dataclass(frozen=True)
class Case:
    """The recipe of Ma and Hovy 2016, with structured dropout.

    Args:
        name: of the row.
        p: rate at all places, the characters' ordinary dropout included.
        recurrent: RH besides the recurrent layer's input and output.
        hidden, word_dim: H of a direction, width of word vectors.
        batches: of an update each, in one round; of different lengths.
        sentences: predicted in one round.
        cell: of the recurrent layer.
    """

    name: str
    p: float
    recurrent: bool
    hidden: int = 200
    word_dim: int = 100
    batches: int = 30
    sentences: int = 500
    cell: str = "lstm"

    def config(self, p: float) -> TaggerConfig:
        pattern = DropoutPattern(p)
        return TaggerConfig(
            word_dim=self.word_dim, hidden=self.hidden, cell=self.cell, char_dropout=p,
            input_dropout=pattern, output_dropout=pattern,
            recurrent_dropout=pattern if self.recurrent else DropoutPattern(0.0),
        )  # fmt: skip

    @property
    def ideal(self) -> float:
        """Return the ideal gain of the products of the recurrent layer and of the tags; all three
        phases shrink alike, so the forward pass tells."""
        kept, H, tags = 1 - self.p, self.hidden, len(vocabulary().tags)
        D = self.word_dim + self.config(0.0).char_width
        gates = STRUCTURED[self.cell].gates * H
        x, h, y = 2 * D * gates, 2 * H * gates, 2 * H * tags
        return (x + h + y) / (x * kept + h * (kept if self.recurrent else 1) + y * kept)


@cache
def corpora() -> Corpora:
    return Corpora.folder()


@cache
def vocabulary() -> Vocabulary:
    """Read the words of all three files: nothing is scored here, and the sample's training
    file alone has fewer words than a tagger usually knows."""
    return Vocabulary.build(
        [sentence.words for part in corpora().there.values() for sentence in part.sentences],
        corpora().train.in_scheme("bioes"),
        scheme="bioes",
    )


class Data:
    """What all models learn from and predict.

    Attributes:
        batches: of an update each, on the device.
        unseen: sentences to predict.
    """

    def __init__(self, case: Case, model: Tagger | PlainTagger, target: Target = CPU) -> None:
        train, valid = corpora().train, corpora().valid
        layout = model.chars.layout
        words = [sentence.words for sentence in train.sentences]
        known = Encoded(vocabulary(), words, layout, train.in_scheme("bioes"))
        plans = plan(known.lengths, BATCH, seed=0, epoch=0)[: case.batches]
        self.batches = [known.batch(chosen).to(target.device) for chosen in plans]
        words = [sentence.words for sentence in valid.sentences[: case.sentences]]
        self.unseen = Encoded(vocabulary(), words, layout)


class Work:
    """A model in training, with its data.

    Args:
        engine: runs the ops; ``"cpu"`` also where ours would leave the work to torch.
        target: the device, and the precision: float32, or mixed as the trainer has it.
    """

    def __init__(
        self, model: Tagger | PlainTagger, data: Data, engine: str = "auto", target: Target = CPU
    ) -> None:
        self.model, self.engine, self.target = model.to(target.device), engine, target
        self.batches, self.unseen = data.batches, data.unseen
        self.update = Update(
            self.model, RECIPE, device=target.device, plain=isinstance(model, PlainTagger)
        )

    def train(self) -> None:
        """Make an update on each batch, as the trainer does; the loss is the mean of the
        sentences'."""
        with ops.use(self.engine), self.update.gradients():
            for batch in self.batches:
                with self.target.autocast():
                    loss = self.model(batch) / batch.sentences
                loss.backward()
                self.update.make()

    def predict(self) -> list[list[str]]:
        """Give the tags of the sentences to predict, in a tagger's batches."""
        with ops.use(self.engine), self.target.autocast():
            return decode(self.model, vocabulary(), self.unseen, EVAL_BATCH)  # type: ignore[arg-type]  # a plain one decodes alike

    def checked(self) -> list[Batch]:
        """Give the shortest and the longest batch: what is compared."""
        ordered = sorted(self.batches, key=lambda batch: len(batch.sizes))
        return [ordered[0], ordered[-1]]

    def results(self, seed: int) -> list[Tensor]:
        """Give the loss and every gradient of the batches that are compared."""
        torch.manual_seed(seed)
        parameters, found = list(self.model.parameters()), []
        for batch in self.checked():
            with self.target.autocast():
                loss = self.model(batch)
            found += [loss.detach(), *torch.autograd.grad(loss, parameters)]
        return found

    @torch.no_grad()
    def scores(self) -> list[Tensor]:
        """Score the tags of sentences to predict, ``[R, K]`` a batch."""
        self.model.eval()
        with self.target.autocast():
            found = [
                self.model.scores(batch.to(self.target.device))
                for batch in in_order(self.unseen, EVAL_BATCH)
            ]
        self.model.train()
        return found

    def twin(self, double: bool) -> Work:
        """Copy it without dropped characters: torch draws those, not in all types alike."""
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model)
        twin.model.chars.dropout = 0.0
        if double:
            twin.model.double()
            twin.target = Target(self.target.device)
        return twin
