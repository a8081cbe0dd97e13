"""Translators of the installed OpenNMT-py in training: their batches and updates.

Models, losses, optimizer and trainer are built by OpenNMT-py from its own options. Making batches
is no part of an update.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from opennmt_sd import ops
from opennmt_sd.benchmark.translation import LAYERS, Case, texts
from opennmt_sd.benchmark.translator_work import TranslatorWork
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
    """Give the vocabularies of words w0, w1, ..., so many with the special ones."""
    words = [f"w{i}" for i in range(size - len(SPECIALS))]
    return vocabularies_of(words, words)


def vocabularies_of(source: list[str], target: list[str]) -> dict[str, Any]:
    """Give what OpenNMT-py makes of a checkpoint's vocabularies, of words on either side."""
    sides = {"src": SPECIALS + source, "tgt": SPECIALS + target}
    return dict_to_vocabs({**sides, "data_task": ModelTask.SEQ2SEQ})


def batches(case: Case) -> list[dict[str, Any]]:
    """Batches as OpenNMT-py's training gets them: numbered, sorted and padded by it."""
    return _batches(case.vocabulary, case.sentences, case.batches)


@cache
def _batches(size: int, sentences: int, count: int) -> list[dict[str, Any]]:
    case = Case("", 0, size, sentences=sentences, batches=count)
    return [batch_of(vocabularies(size), pairs) for pairs in texts(case)]


def batch_of(vocabs: dict[str, Any], pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Give a batch of sentence pairs, words apart."""
    found = [
        numericalize(vocabs, {"src": {"src": source}, "tgt": {"tgt": target},
                              "cid": "random", "cid_line_number": i})
        for i, (source, target) in enumerate(pairs)
    ]  # fmt: skip
    found.sort(key=text_sort_key, reverse=True)
    return tensorify(vocabs, [(example, i) for i, example in enumerate(found)], "cpu")


def options(case: Case, *, ours: bool, p: float, gpu: bool = False, **further: Any) -> Namespace:
    """``onmt_train``'s options, as its own parser reads and completes them."""
    given: dict[str, Any] = {
        "data": "{}", "src_vocab": "none", "layers": LAYERS, "hidden_size": case.hidden,
        "word_vec_size": case.hidden, "input_feed": int(case.input_feed), "dropout": p,
        "encoder_type": "sd_brnn" if ours else "brnn", "decoder_type": "sd_rnn" if ours else "rnn",
        "optim": "adam", "learning_rate": 0.001, "max_grad_norm": 5, "rnn_type": case.rnn,
        **further,
    }  # fmt: skip
    if ours and case.recurrent:
        given["sd_recurrent_dropout"] = p
    if ours and case.fixed:
        given["sd_time"] = "fixed"
    if gpu:
        given |= {"gpu_ranks": 0, "world_size": 1}
    parser = ArgumentParser()
    train_opts(parser)
    words = itertools.chain(*((f"-{name}", str(value)) for name, value in given.items()))
    opt, _ = parser.parse_known_args(list(words))
    for complete in ("validate_train_opts", "update_model_opts", "validate_model_opts"):
        getattr(ArgumentParser, complete)(opt)
    opt.data = {}  # no corpora: nothing is read
    return opt


class Work(TranslatorWork):
    """A translator of OpenNMT-py's, with our types or its own."""

    further: Mapping[str, Any] = {}  # options

    def corpus(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the vocabularies and the batches."""
        return vocabularies(self.case.vocabulary), batches(self.case)

    def build(self, weights: TranslatorWork | None) -> None:
        register()
        logging.getLogger("onmt").setLevel(logging.WARNING)
        gpu = self.target.gpu
        opt = options(self.case, ours=self.ours, p=self.p, gpu=gpu, **self.further)
        device_id = 0 if gpu else -1
        vocabs, found = self.corpus()
        self.model = onmt.model_builder.build_model(opt, opt, vocabs, None, device_id)
        if weights is not None:  # OpenNMT-py's own load_state_dict empties what it is given
            nn.Module.load_state_dict(self.model, weights.model.state_dict())
        self.optim = Optimizer.from_opt(self.model, opt)
        self.trainer = onmt.trainer.build_trainer(opt, device_id, self.model, vocabs, self.optim)
        self.batches = self.moved(found)
        self.statistics = Statistics()

    def step(self) -> None:
        """Make an update: forward, loss, statistics, backward, clip, Adam."""
        with ops.use(self.engine), warnings.catch_warnings():
            # torch's word on `torch.cuda.amp.autocast`, which OpenNMT-py calls on a CPU too
            warnings.simplefilter("ignore", FutureWarning)
            self.trainer._gradient_accumulation(
                *next(self.updates), self.statistics, self.statistics
            )
