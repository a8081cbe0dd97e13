"""Suite ``onmt``: a whole update of the installed OpenNMT-py, as ``onmt_train`` makes it, with its
own types (``brnn``, ``rnn``) and with ours (``sd_brnn``, ``sd_rnn``); and the update's phases.

Models, losses, optimizer and trainer are built by OpenNMT-py from its own options. Words are
random: what an update costs does not depend on them. Making batches is no part of an update.
"""

from __future__ import annotations

import gc
import itertools
import logging
import random
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import WARM_UP, alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.onmt import register

with warnings.catch_warnings():  # torch's, on decorators of a torch.cuda.amp of old
    warnings.simplefilter("ignore", FutureWarning)
    import onmt.model_builder
    import onmt.trainer
    from onmt.constants import DefaultTokens, ModelTask
    from onmt.inputters.inputter import dict_to_vocabs
    from onmt.inputters.text_utils import numericalize, tensorify, text_sort_key
    from onmt.opts import train_opts
    from onmt.utils.optimizers import Optimizer
    from onmt.utils.parse import ArgumentParser
    from onmt.utils.statistics import Statistics

TOLERANCE = 1e-4  # float32 along 26 and 31 dependent steps
LAYERS = 2
SPECIALS = [DefaultTokens.UNK, DefaultTokens.PAD, DefaultTokens.BOS, DefaultTokens.EOS]
SOURCE, TARGET = (20, 26), (20, 32)  # lengths; a target's with <s> and </s>
PHASES = ("encoder", "decoder", "generator+loss", "optimizer")


@dataclass(frozen=True)
class Case:
    """A translator: an encoder that reads both ways, a decoder with global attention.

    Args:
        name: of the rows.
        hidden: H of the encoder's both directions together, of the decoder, and the width of word
            vectors.
        vocabulary: words on either side, the four special ones included.
        p: rate at all places that follow ``dropout``.
        recurrent: RH besides, at the same rate.
        input_feed: the decoder reads its attended output of the step before.
        sentences, batches: sentences of a batch, and batches that take turns.
    """

    name: str
    hidden: int
    vocabulary: int
    p: float = 0.0
    recurrent: bool = False
    input_feed: bool = True
    sentences: int = 64
    batches: int = 4

    def ideals(self) -> dict[str, float]:
        """Dense products over what is left of them: of a phase, and of the whole ``step``. The
        forward and both backward products of a weight shrink alike, so the forward pass tells."""
        dense, kept = replace(self, p=0.0).products(), self.products()
        ideals = {phase: dense[phase] / kept[phase] for phase in dense}
        return {**ideals, "optimizer": 1.0, "step": sum(dense.values()) / sum(kept.values())}

    def products(self) -> dict[str, float]:
        """Multiplications of the forward passes over all batches, those of padding left out."""
        H, kept = self.hidden, 1 - self.p
        rh = kept if self.recurrent else 1.0
        lengths = [
            (int(source), int(target) - 1)  # the last word of a target is no input
            for batch in batches(self)
            for source, target in zip(batch["srclen"], batch["tgtlen"])
        ]
        source, target = (sum(side) for side in zip(*lengths))
        pairs = sum(s * t for s, t in lengths)
        gates = 4 * H * H  # of a layer of width H, for H inputs; half as many for half the width
        inputs = LAYERS + 1 if self.input_feed else LAYERS
        attention = 3 * H * H * target + 2 * H * pairs  # linear_in, linear_out; scores, context
        return {
            "encoder": source * LAYERS * gates * (kept + rh / 2),
            "decoder": target * gates * (inputs * kept + LAYERS * rh) + attention,
            "generator+loss": target * self.vocabulary * H * kept,
        }

    @property
    def words(self) -> float:
        """Target tokens of an update, as OpenNMT-py counts them: with ``</s>``, without ``<s>``."""
        return sum(int((batch["tgtlen"] - 1).sum()) for batch in batches(self)) / self.batches


CASES = [
    Case("500 V15k p.3 NR", 500, 15_000, 0.3),
    Case("500 V15k p.5 NR", 500, 15_000, 0.5),
    Case("500 V15k p.5 NR+RH", 500, 15_000, 0.5, recurrent=True),
    Case("500 V15k p0", 500, 15_000),
    Case("1024 V10k p.5 NR+RH", 1024, 10_000, 0.5, recurrent=True),
    Case("1024 V10k p0", 1024, 10_000),
    Case("512 V10k no-input-feed p.3 NR", 512, 10_000, 0.3, input_feed=False),
    Case("512 V10k no-input-feed p0", 512, 10_000, input_feed=False),
]


@cache
def vocabularies(size: int) -> dict[str, Any]:
    """What OpenNMT-py makes of a checkpoint's vocabularies, of words w0, w1, ..."""
    tokens = SPECIALS + [f"w{i}" for i in range(size - len(SPECIALS))]
    return dict_to_vocabs({"src": tokens, "tgt": tokens, "data_task": ModelTask.SEQ2SEQ})


def batches(case: Case) -> list[dict[str, Any]]:
    """Batches as OpenNMT-py's training gets them: numbered, sorted and padded by it."""
    return _batches(case.vocabulary, case.sentences, case.batches)


@cache
def _batches(size: int, sentences: int, count: int) -> list[dict[str, Any]]:
    vocabs, draw = vocabularies(size), random.Random(1)

    def text(lengths: tuple[int, int], ends: int = 0) -> str:
        length = draw.randint(*lengths) - ends
        return " ".join(f"w{draw.randrange(size - len(SPECIALS))}" for _ in range(length))

    def batch() -> dict[str, Any]:
        found = [
            numericalize(vocabs, {"src": {"src": text(SOURCE)}, "tgt": {"tgt": text(TARGET, 2)},
                                  "cid": "random", "cid_line_number": i})
            for i in range(sentences)
        ]  # fmt: skip
        found.sort(key=text_sort_key, reverse=True)
        return tensorify(vocabs, [(example, i) for i, example in enumerate(found)], "cpu")

    return [batch() for _ in range(count)]


def options(case: Case, *, ours: bool, p: float) -> Namespace:
    """``onmt_train``'s options, as its own parser reads and completes them."""
    given: dict[str, Any] = {
        "data": "{}", "src_vocab": "none", "layers": LAYERS, "hidden_size": case.hidden,
        "word_vec_size": case.hidden, "input_feed": int(case.input_feed), "dropout": p,
        "encoder_type": "sd_brnn" if ours else "brnn", "decoder_type": "sd_rnn" if ours else "rnn",
        "optim": "adam", "learning_rate": 0.001, "max_grad_norm": 5,
    }  # fmt: skip
    if ours and case.recurrent:
        given["sd_recurrent_dropout"] = p
    parser = ArgumentParser()
    train_opts(parser)
    words = itertools.chain(*((f"-{name}", str(value)) for name, value in given.items()))
    opt, _ = parser.parse_known_args(list(words))
    for complete in ("validate_train_opts", "update_model_opts", "validate_model_opts"):
        getattr(ArgumentParser, complete)(opt)
    opt.data = {}  # no corpora: nothing is read
    return opt


class Work:
    """A translator in training, with its batches.

    Args:
        case: what is trained.
        ours: with our types; else with OpenNMT-py's.
        p: rate; RH's too, where the case has it.
        engine: runs the ops; ``"cpu"`` also where ours would leave the work to torch.
        weights: of another one, to start from.
    """

    def __init__(
        self, case: Case, *, ours: bool, p: float, engine: str = "auto", weights: Work | None = None
    ) -> None:
        register()
        logging.getLogger("onmt").setLevel(logging.WARNING)
        self.case, self.ours, self.p, self.engine = case, ours, p, engine
        opt, vocabs = options(case, ours=ours, p=p), vocabularies(case.vocabulary)
        self.model = onmt.model_builder.build_model(opt, opt, vocabs, None, -1)
        if weights is not None:  # OpenNMT-py's own load_state_dict empties what it is given
            nn.Module.load_state_dict(self.model, weights.model.state_dict())
        self.optim = Optimizer.from_opt(self.model, opt)
        self.trainer = onmt.trainer.build_trainer(opt, -1, self.model, vocabs, self.optim)
        self.batches = batches(case)
        updates = list(self.trainer._accum_batches((batch, 0) for batch in self.batches))
        self.updates = itertools.cycle(updates)
        self.statistics = Statistics()

    def step(self) -> None:
        """An update: forward, loss, statistics, backward, clip, Adam."""
        with ops.use(self.engine), warnings.catch_warnings():
            # torch's word on `torch.cuda.amp.autocast`, which OpenNMT-py calls on a CPU too
            warnings.simplefilter("ignore", FutureWarning)
            self.trainer._gradient_accumulation(
                *next(self.updates), self.statistics, self.statistics
            )

    def results(self, seed: int) -> list[Tensor]:
        """Of one batch the loss and every gradient; in evaluation the loss, the decoder's output
        and the attention."""
        batch, training = self.batches[0], self.model.training
        loss_of = self.trainer.train_loss if training else self.trainer.valid_loss
        torch.manual_seed(seed)
        with ops.use(self.engine), torch.set_grad_enabled(training):
            output, attns = self.model(batch["src"], batch["tgt"], batch["srclen"])
            loss, _ = loss_of(batch, output, attns)
            if not training:
                return [loss, output, attns["std"]]
            weights = [weight for _, weight in sorted(self.model.named_parameters())]
            return [loss.detach(), *torch.autograd.grad(loss, weights)]

    def truth(self, seed: int, p: float | None = None) -> list[Tensor]:
        """The results of the same weights in float64, where our ops are the naive engine's."""
        twin = Work(self.case, ours=self.ours, p=self.p if p is None else p, engine="naive",
                    weights=self)  # fmt: skip
        twin.model.double().train(self.model.training)
        return twin.results(seed)


def works(case: Case) -> dict[str, Work]:
    """What takes turns, all with the same weights."""
    torch.manual_seed(0)
    stock = Work(case, ours=False, p=case.p)
    return {
        "torch": stock,
        "dense": Work(case, ours=True, p=0.0, engine="cpu", weights=stock),
        "ours": Work(case, ours=True, p=case.p, weights=stock),
    }


def workload(name: str, variant: str) -> Callable[[], Any]:
    """An update of a case: ``"torch"`` or ``"ours"``."""
    case = next(case for case in CASES if case.name == name)
    torch.manual_seed(0)
    return Work(case, ours=variant == "ours", p=case.p).step


def warm_up() -> None:
    """What both sides load and set up once in a process, so that it is not taken for memory of a
    workload."""
    case = Case("small", 16, 50, 0.5, recurrent=True, sentences=2, batches=1)
    for ours in (False, True):
        Work(case, ours=ours, p=case.p).step()


def run(repeats: int = 15, cases: Sequence[Case] | None = None) -> Iterator[Row]:
    """For each case the row ``step``, and one for each of the :data:`PHASES`, which are timed in
    further updates, a third as many.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in CASES if cases is None else cases:
        yield from _measured(case, repeats)
        gc.collect()  # models and trainers know each other: gigabytes would wait for the collector


def _measured(case: Case, repeats: int) -> Iterator[Row]:
    turns = works(case)
    error = check(case, turns)
    memory = {v: peak_mb("onmt", case.name, v, torch.get_num_threads())
              for v in ("torch", "ours")}  # fmt: skip
    ms = alternate({name: work.step for name, work in turns.items()}, repeats)
    yield _row(
        case, "step", ms, error, draw_ms=draw_ms(case) if case.p else None,
        units_per_s=case.words / ms["ours"] * 1e3,
        torch_units_per_s=case.words / ms["torch"] * 1e3,
        peak_mb=memory["ours"], torch_peak_mb=memory["torch"],
    )  # fmt: skip
    watches = {name: Stopwatch(work) for name, work in turns.items()}
    alternate({name: watch.update for name, watch in watches.items()}, -(-repeats // 3))
    for phase in PHASES:
        yield _row(case, phase, {n: watch.ms(phase) for n, watch in watches.items()}, error)


def _row(case: Case, phase: str, ms: Mapping[str, float], error: float, **more: Any) -> Row:
    return Row(
        suite="onmt", case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"],
        dense_ms=ms["dense"], ours_ms=ms["ours"], ideal=case.ideals()[phase], max_rel_err=error,
        **more,
    )  # fmt: skip


def check(case: Case, turns: Mapping[str, Work]) -> float:
    """The error of ours: in training against the naive engine in float64 (one seed, so the same
    units are dropped); with nothing dropped, in training and in evaluation, against OpenNMT-py's
    own types in float64.

    Raises:
        RedGateError: it is too large.
    """
    stock, dense, ours = turns["torch"], turns["dense"], turns["ours"]
    errors = [gate(case.name, relative_error(ours.results(2), ours.truth(2)), TOLERANCE)]
    plain = relative_error(dense.results(2), stock.truth(2, p=0.0))
    errors.append(gate(f"{case.name} with nothing dropped", plain, TOLERANCE))
    for work in (stock, ours):
        work.model.eval()
    evaluation = relative_error(ours.results(3), stock.truth(3))
    errors.append(gate(f"{case.name} eval", evaluation, TOLERANCE))
    for work in (stock, ours):
        work.model.train()
    return max(errors)


class Stopwatch:
    """Times the phases of updates, forward and backward of each together.

    A phase lasts until the next one begins. The forward pass enters them as modules are called;
    the backward pass has left a module once the gradient of what it was given is asked for, and
    autograd asks for the latest in the forward pass first.

    Args:
        work: whose updates; from now on they all are slower by the marks.
    """

    ORDER = ("optimizer", "encoder", "decoder", "generator+loss", "decoder", "encoder", "optimizer")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.rounds: list[list[tuple[str, float]]] = []  # phase, begin
        work.model.encoder.register_forward_pre_hook(lambda *_: self._enter("encoder"))
        work.model.encoder.register_forward_hook(self._encoded)
        work.trainer.train_loss.register_forward_pre_hook(self._decoded)
        step = work.optim.step

        def watched_step() -> None:
            self._enter("optimizer")
            step()

        work.optim.step = watched_step

    def update(self) -> None:
        """One update. It begins with ``zero_grad``.

        Raises:
            RuntimeError: the phases did not come in their order.
        """
        self.rounds.append([])
        self._enter("optimizer")
        self.work.step()
        self._enter("end")
        order = tuple(phase for phase, _ in self.rounds[-1][:-1])
        if order != self.ORDER:
            raise RuntimeError(f"an update went through {order}, which should be {self.ORDER}")

    def ms(self, phase: str) -> float:
        """The median of the updates after those that warm up."""
        return statistics.median(
            1e3 * sum(end - begin for (name, begin), (_, end) in zip(marks, marks[1:])
                      if name == phase)
            for marks in self.rounds[WARM_UP:]
        )  # fmt: skip

    def _enter(self, phase: str, *_: Any) -> None:
        marks = self.rounds[-1]
        if not marks or marks[-1][0] != phase:
            marks.append((phase, time.perf_counter()))

    def _encoded(self, _: nn.Module, __: Any, output: Any) -> None:
        enc_out, final_states, _lengths = output
        for given in (enc_out, *final_states):  # to the decoder
            given.register_hook(lambda _: self._enter("encoder"))
        self._enter("decoder")

    def _decoded(self, _: nn.Module, args: Any) -> None:
        _batch, dec_out, *_more = args
        dec_out.register_hook(lambda _: self._enter("decoder"))
        self._enter("generator+loss")


def draw_ms(case: Case) -> float:
    """What drawing the sets of one update costs."""
    pattern, H = DropoutPattern(case.p), case.hidden
    places = [(SOURCE[1], H)] * LAYERS + [(TARGET[1] - 1, H)] * (LAYERS + 1)  # embeddings, layers
    if case.recurrent:
        places += [(SOURCE[1], H // 2)] * 2 * LAYERS + [(TARGET[1] - 1, H)] * LAYERS

    def draw() -> None:
        for T, width in places:
            pattern.draw(T, case.sentences, width)

    return alternate({"draw": draw}, 25)["draw"]
