"""Translators of the installed OpenNMT-py in training: their sizes, batches and updates.

Models, losses, optimizer and trainer are built by OpenNMT-py from its own options. Words are
random: what an update costs does not depend on them. Making batches is no part of an update.
"""

from __future__ import annotations

import itertools
import logging
import random
import warnings
from argparse import Namespace
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
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

LAYERS = 2
GATES = {"LSTM": 4, "GRU": 3}
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
        rnn: ``"LSTM"`` or ``"GRU"``.
        sentences, batches: sentences of a batch, and batches that take turns.
    """

    name: str
    hidden: int
    vocabulary: int
    p: float = 0.0
    recurrent: bool = False
    input_feed: bool = True
    rnn: str = "LSTM"
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
        # Of a layer of width H, for H inputs; half as many for half the width.
        gates = GATES[self.rnn] * H * H
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


@cache
def vocabularies(size: int) -> dict[str, Any]:
    """Give what OpenNMT-py makes of a checkpoint's vocabularies, of words w0, w1, ..."""
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
        "optim": "adam", "learning_rate": 0.001, "max_grad_norm": 5, "rnn_type": case.rnn,
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
        """Make an update: forward, loss, statistics, backward, clip, Adam."""
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
        """Give the results of the same weights in float64, where our ops are the naive engine's."""
        twin = Work(self.case, ours=self.ours, p=self.p if p is None else p, engine="naive",
                    weights=self)  # fmt: skip
        twin.model.double().train(self.model.training)
        return twin.results(seed)
