"""Translators of the installed OpenNMT-py in training: their batches and updates.

Models, losses, optimizer and trainer are built by OpenNMT-py from its own options. Making batches
is no part of an update.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from argparse import Namespace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.translation import LAYERS, Case, texts
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

SPECIALS = [DefaultTokens.UNK, DefaultTokens.PAD, DefaultTokens.BOS, DefaultTokens.EOS]


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
    vocabs = vocabularies(size)

    def batch(pairs: list[tuple[str, str]]) -> dict[str, Any]:
        found = [
            numericalize(vocabs, {"src": {"src": source}, "tgt": {"tgt": target},
                                  "cid": "random", "cid_line_number": i})
            for i, (source, target) in enumerate(pairs)
        ]  # fmt: skip
        found.sort(key=text_sort_key, reverse=True)
        return tensorify(vocabs, [(example, i) for i, example in enumerate(found)], "cpu")

    return [batch(pairs) for pairs in texts(Case("", 0, size, sentences=sentences, batches=count))]


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
