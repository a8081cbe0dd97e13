"""Translators of the installed Eole in training: their batches and updates.

Models, losses, optimizer and trainer are built by Eole from its own configuration. Making batches
is no part of an update.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from eole.config.run import TrainConfig
from eole.constants import CorpusTask, DefaultTokens
from eole.inputters.inputter import dict_to_vocabs
from eole.inputters.text_utils import Numericalizer, tensorify
from eole.models.model import get_model_class
from eole.trainer import build_trainer
from eole.utils.optimizers import Optimizer
from eole.utils.statistics import Statistics

from opennmt_sd import ops
from opennmt_sd.benchmark.translation import LAYERS, Case, texts
from opennmt_sd.benchmark.translator_work import TranslatorWork
from opennmt_sd.eole import register

SPECIALS = {
    "unk_token": DefaultTokens.UNK, "pad_token": DefaultTokens.PAD,
    "bos_token": DefaultTokens.BOS, "eos_token": DefaultTokens.EOS,
}  # fmt: skip


@cache
def vocabularies(size: int) -> dict[str, Any]:
    """Give what Eole makes of a checkpoint's vocabularies, of words w0, w1, ..."""
    tokens = [*SPECIALS.values(), *(f"w{i}" for i in range(size - len(SPECIALS)))]
    known = {"src": tokens, "tgt": tokens, "decoder_start_token": DefaultTokens.BOS}
    return dict_to_vocabs({**known, "specials": SPECIALS})


def batches(case: Case) -> list[dict[str, Any]]:
    """Batches as Eole's training gets them: numbered and padded by it, the longest first."""
    return _batches(case.vocabulary, case.sentences, case.batches)


@cache
def _batches(size: int, sentences: int, count: int) -> list[dict[str, Any]]:
    vocabs = vocabularies(size)
    numbered = Numericalizer(vocabs, task=CorpusTask.TRAIN)

    def batch(pairs: list[tuple[str, str]]) -> dict[str, Any]:
        found = [
            numbered({"src": {"src": source.split()}, "tgt": {"tgt": target.split()}, "sco": 1.0,
                      "cid": "random", "cid_line_number": i})
            for i, (source, target) in enumerate(pairs)
        ]  # fmt: skip
        found.sort(key=lambda example: -len(example["src"]["src_ids"]))
        return tensorify(vocabs, [(example, i) for i, example in enumerate(found)], "cpu")

    return [batch(pairs) for pairs in texts(Case("", 0, size, sentences=sentences, batches=count))]


def configuration(case: Case, *, ours: bool, p: float, gpu: bool = False) -> TrainConfig:
    """``eole train``'s configuration, as it reads and completes it."""
    sizes = {"layers": LAYERS, "hidden_size": case.hidden, "rnn_type": case.rnn}
    model: dict[str, Any] = {
        "architecture": "custom", "input_feed": int(case.input_feed),
        "embeddings": {"word_vec_size": case.hidden, "position_encoding_type": None},
        "encoder": {"encoder_type": "brnn", **sizes}, "decoder": {"decoder_type": "rnn", **sizes},
    }  # fmt: skip
    if ours:
        model["sd_space"] = "structured"
        if case.recurrent:
            model["sd_recurrent_dropout"] = p
    training = {"dropout": [p], "optim": "adam", "learning_rate": 0.001, "max_grad_norm": 5}
    if gpu:
        training |= {"gpu_ranks": [0], "world_size": 1}
    return TrainConfig(model=model, training=training, data={}, src_vocab="none", seed=1)


class Work(TranslatorWork):
    """A translator of Eole's, with our dropout or its own."""

    def build(self, weights: TranslatorWork | None) -> None:
        register()
        logging.getLogger("eole").setLevel(logging.WARNING)
        gpu = self.target.gpu
        config = configuration(self.case, ours=self.ours, p=self.p, gpu=gpu)
        vocabs, device_id = vocabularies(self.case.vocabulary), 0 if gpu else -1
        self.model = get_model_class(config.model).for_training(
            config.model, vocabs, config.training, device_id=device_id
        )
        if weights is not None:
            self.model.load_state_dict(weights.model.state_dict())
        self.optim = Optimizer.from_config(self.model, config)
        self.trainer = build_trainer(config, device_id, self.model, vocabs, self.optim)
        self.batches = self.moved(batches(self.case))
        self.statistics = Statistics()

    def step(self) -> None:
        """Make an update: forward, loss, statistics, backward, clip, Adam."""
        with ops.use(self.engine):
            self.trainer._train_step(*next(self.updates), self.statistics, self.statistics)
