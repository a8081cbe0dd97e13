"""Suite ``tagger``: whole updates of the tagger (forward, loss, backward, clip, update) and its
predictions, against the same model in plain torch with the same CRF, batches and optimizer.

Sentences are those of the WNUT-17 sample. The words of its three files make the vocabulary, 17,831:
nearly as many as CoNLL-2003's 21,010, so that embedding, clip and update weigh what they weigh
there. Making batches is the same for all and outside of an update's time; of a prediction's time
it is part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import RedGateError, Row, gate, relative_error
from opennmt_sd.benchmark.target import CPU, Target, on_engine
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.by_name import STRUCTURED
from opennmt_sd.tagger.batches import Batch, Encoded, in_order, plan
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.decoding import decode
from opennmt_sd.tagger.model import Tagger, TaggerConfig
from opennmt_sd.tagger.reference import PlainTagger
from opennmt_sd.tagger.vocabulary import Vocabulary

TOLERANCE = 1e-4  # float32 along 40 dependent steps, and a CRF's
BATCH, EVAL_BATCH = 10, 64
CLIP = 5.0


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
        """Of the products of the recurrent layer and of the tags; all three phases shrink alike,
        so the forward pass tells."""
        kept, H, tags = 1 - self.p, self.hidden, len(vocabulary().tags)
        D = self.word_dim + self.config(0.0).char_width
        gates = STRUCTURED[self.cell].gates * H
        x, h, y = 2 * D * gates, 2 * H * gates, 2 * H * tags
        return (x + h + y) / (x * kept + h * (kept if self.recurrent else 1) + y * kept)


CASES = [
    Case("ma_hovy NR", 0.5, False),
    Case("ma_hovy NR+RH", 0.5, True),
    Case("ma_hovy", 0.0, False),
    Case("ma_hovy GRU NR+RH", 0.5, True, cell="gru"),
]


@cache
def corpora() -> Corpora:
    return Corpora.folder()


@cache
def vocabulary() -> Vocabulary:
    """Of all three files: nothing is scored here, and the sample's training file alone has fewer
    words than a tagger usually knows."""
    parts = corpora().train, corpora().valid, corpora().test
    return Vocabulary.build(
        [sentence.words for part in parts for sentence in part.sentences],
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
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.015, momentum=0.9)

    def train(self) -> None:
        """Make an update on each batch, as the trainer does; the loss is the mean of the
        sentences'."""
        with ops.use(self.engine):
            for batch in self.batches:
                with self.target.autocast():
                    loss = self.model(batch) / batch.sentences
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
                self.optimizer.step()
                self.optimizer.zero_grad()

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


def works(case: Case, target: Target = CPU) -> dict[str, Work]:
    """Build what takes turns, all with the same weights."""
    torch.manual_seed(0)
    plain = PlainTagger(case.config(case.p), vocabulary())
    dense, ours = (Tagger(case.config(p), vocabulary()) for p in (0.0, case.p))
    for model in (dense, ours):
        model.load_state_dict(plain.state_dict())
    data = Data(case, plain, target)
    return {
        "torch": Work(plain, data, target=target),
        "dense": Work(dense, data, target.own, target),
        "ours": Work(ours, data, target=target),
    }


def workload(name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
    """Give the updates of a case: ``"torch"`` or ``"ours"``."""
    case = next(case for case in CASES if case.name == name)
    torch.manual_seed(0)
    model = (PlainTagger if variant == "torch" else Tagger)(case.config(case.p), vocabulary())
    return Work(model, Data(case, model, target), target=target).train


def run(
    repeats: int = 15, cases: Sequence[Case] | None = None, target: Target = CPU
) -> Iterator[Row]:
    """Row after row: ``step``; with nothing dropped also ``eval``. Times are of a batch.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in CASES if cases is None else cases:
        turns = works(case, target)
        error = check_step(case, turns["ours"])
        # Before a model has learned: one that has, if only for seconds, tags everything alike.
        eval_error = check_eval(case, turns["torch"], turns["ours"])
        batches, unseen = turns["ours"].batches, turns["ours"].unseen
        more: dict[str, float] = {}
        if case.p:  # with nothing dropped, torch's layers are all there is
            more["peak_mb"] = peak_mb("tagger", case.name, "ours", target)
            more["torch_peak_mb"] = peak_mb("tagger", case.name, "torch", target)
            if not target.gpu:
                more["draw_ms"] = draw_ms(batches, case)
        if target.loops(case.recurrent):
            turns["loop"] = on_engine(turns["ours"], "dense")
        ms = target.alternate({name: work.train for name, work in turns.items()}, repeats)
        yield _row(
            case, "step", ms, batches=len(batches),
            sentences=sum(batch.sentences for batch in batches), ideal=case.ideal,
            max_rel_err=error, **more,
        )  # fmt: skip
        if case.p:
            continue  # prediction drops nothing
        ms = target.alternate({name: work.predict for name, work in turns.items()}, repeats)
        yield _row(
            case, "eval", ms, batches=len(list(in_order(unseen, EVAL_BATCH))),
            sentences=len(unseen.lengths), ideal=1.0, max_rel_err=eval_error,
        )  # fmt: skip


def _row(
    case: Case, phase: str, ms: dict[str, float], *, batches: int, sentences: int, **more: Any
) -> Row:
    """Make a row of the times of a round."""
    return Row(
        suite="tagger", case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"] / batches,
        dense_ms=ms["dense"] / batches, ours_ms=ms["ours"] / batches,
        loop_ms=ms["loop"] / batches if "loop" in ms else None,
        units_per_s=sentences / ms["ours"] * 1e3, torch_units_per_s=sentences / ms["torch"] * 1e3,
        **more,
    )  # fmt: skip


def check_step(case: Case, ours: Work) -> float:
    """The error of loss and gradients against the naive engine in float64; one seed, so the same
    units are dropped. The CRF is the same in both.

    Raises:
        RedGateError: it is too large.
    """
    with ops.use("naive"):
        truth = ours.twin(double=True).results(2)
    return gate(case.name, relative_error(ours.twin(double=False).results(2), truth),
                ours.target.tolerance(TOLERANCE))  # fmt: skip


def check_eval(case: Case, plain: Work, ours: Work) -> float:
    """The error of the tags' scores against the plain model in float64, and, in float32, the tags
    themselves.

    Raises:
        RedGateError: it is too large, or a tag is another one.
    """
    truth = plain.twin(double=True).scores()
    tolerance = ours.target.tolerance(TOLERANCE)
    error = gate(f"{case.name} eval", relative_error(ours.scores(), truth), tolerance)
    wrong = sum(a != b for a, b in zip(ours.predict(), plain.predict()))
    if wrong and ours.target.precision == "float32":  # rounding to less decides between near ones
        raise RedGateError(
            f"{case.name} eval: {wrong} sentences have other tags than with plain torch: results "
            "are wrong, so no speed is reported"
        )
    return error


def draw_ms(batches: Sequence[Batch], case: Case) -> float:
    """Time what drawing the sets of one update costs."""
    pattern, H = DropoutPattern(case.p), case.hidden
    widths = [
        case.word_dim + case.config(0.0).char_width,
        2 * H,
        *([H, H] if case.recurrent else []),
    ]

    def draw() -> None:
        for batch in batches:
            for width in widths:
                pattern.draw(len(batch.sizes), batch.sentences, width)

    return alternate({"draw": draw}, 25)["draw"] / len(batches)
