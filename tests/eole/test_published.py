"""Configurations as users of Eole's RNNs write them, with our line in them: each trains what stock
trains where nothing is dropped, and trains with what it drops; its checkpoint translates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("eole", reason="Eole is not installed: scripts/check_eole.sh runs these tests")

NOTHING = {"dropout": [0.0]}


@dataclass(frozen=True)
class Written:
    """What a configuration has: under ``model``, under ``training``, at the top, of its corpora."""

    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    corpus: dict[str, Any] = field(default_factory=dict)


SUBWORDS = {"src_subword_model": "$codes", "tgt_subword_model": "$codes"}
PUBLISHED = {
    "sgd that decays by halves": Written(
        training={"optim": "sgd", "learning_rate": 1.0, "learning_rate_decay": 0.5,
                  "start_decay_steps": 1, "decay_steps": 1, "max_grad_norm": 5},
    ),
    "adam by noam, in tokens": Written(
        training={"decay_method": "noam", "warmup_steps": 2, "learning_rate": 2,
                  "adam_beta2": 0.998, "batch_type": "tokens", "batch_size": 80,
                  "normalization": "tokens", "accum_count": [2, 1], "accum_steps": [0, 1]},
    ),
    "adagrad, uniform weights": Written(
        training={"optim": "adagrad", "learning_rate": 0.15, "adagrad_accumulator_init": 0.1,
                  "param_init": 0.1, "param_init_method": "uniform", "max_grad_norm": 2},
    ),
    "adamw": Written(training={"optim": "adamw", "weight_decay": 0.01, "decay_method": "rsqrt",
                               "warmup_steps": 2}),
    "a summarizer": Written(
        {"encoder_type": "brnn", "global_attention": "mlp", "coverage_attn": True,
         "lambda_coverage": 1.0},
        {"optim": "adagrad", "learning_rate": 0.15},
        {"share_vocab": True},
    ),
    "one vocabulary, one set of embeddings": Written(
        {"share_embeddings": True, "share_decoder_embeddings": True, "word_vec_size": 12},
        top={"share_vocab": True},
    ),
    "a bridge and a GRU": Written({"encoder_type": "rnn", "rnn_type": "GRU", "bridge": True}),
    "a context gate": Written({"context_gate": "both", "global_attention": "dot"}),
    "no attention": Written({"global_attention": None}),
    "no input feed, smoothed": Written({"input_feed": 0}, {"label_smoothing": 0.1}),
    "embeddings with positions": Written(
        {"embeddings": {"position_encoding_type": "SinusoidalInterleaved"}}
    ),
    "a generator with a bias": Written({"generator_bias": True}),
    "averaged weights": Written(training={"average_decay": 0.01, "average_every": 1}),
    "it stops early, by BLEU": Written(
        training={"valid_steps": 1, "early_stopping": 2, "early_stopping_criteria": "ppl"},
        top={"valid_metrics": ["BLEU"]},
    ),
    "tensorboard": Written(top={"tensorboard": True, "tensorboard_log_dir": "$folder/board"}),
    "a frozen encoder": Written(training={"freeze_encoder": True}),
    "a frozen decoder": Written(training={"freeze_decoder": True}),
    "frozen words": Written(
        {"embeddings": {"position_encoding_type": None, "freeze_word_vecs_enc": True}}
    ),
    "vectors of other people's": Written(
        top={"both_embeddings": "$vectors", "embeddings_type": "GloVe", "save_data": "$folder/vec",
             "n_sample": 0},
    ),
    "a schedule of dropout": Written(
        training={"dropout": [0.3, 0.1], "dropout_steps": [0, 1], "attention_dropout": [0.0, 0.0]},
    ),
    "BPE": Written(
        top={"transforms_configs": {"bpe": SUBWORDS, "filtertoolong": {"src_seq_length": 12,
                                                                       "tgt_seq_length": 12}}},
        corpus={"transforms": ["bpe", "filtertoolong"]},
    ),
    "noise": Written(
        top={"transforms_configs": {"bpe": SUBWORDS,
                                    "switchout": {"switchout_temperature": 1.0},
                                    "tokendrop": {"tokendrop_temperature": 1.0}}},
        corpus={"transforms": ["bpe", "switchout", "tokendrop"], "weight": 3},
    ),
    "OpenNMT's tokens": Written(
        top={"transforms_configs": {"onmt_tokenize": {"src_subword_type": "none",
                                                      "tgt_subword_type": "none"}}},
        corpus={"transforms": ["onmt_tokenize"]},
    ),
    "languages by prefix": Written(
        top={"transforms_configs": {"bpe": SUBWORDS}},
        corpus={"transforms": ["bpe", "prefix"], "src_prefix": "w1", "tgt_prefix": "w2"},
    ),
    "a torch file, few of them": Written(
        training={"save_format": "pytorch", "keep_checkpoint": 1, "bucket_size_init": 6,
                  "bucket_size_increment": 6, "prefetch_factor": 2},
    ),
    "attention's entropy": Written(training={"log_attention_entropy": True}),
}  # fmt: skip


class Files:
    """The files that configurations name."""

    def __init__(self, commands: Any) -> None:
        folder = commands.folder
        (folder / "codes").write_text("#version: 0.2\nw 1\n")
        (folder / "vectors").write_text("".join(f"w{i}{' 0.5' * 10}\n" for i in range(20)))
        self.names = {"$codes": "codes", "$vectors": "vectors", "$folder": "."}
        self.folder: Path = folder

    def of(self, value: Any) -> Any:
        """Fill them in."""
        if isinstance(value, dict):
            return {key: self.of(entry) for key, entry in value.items()}
        for name, path in self.names.items():
            if isinstance(value, str) and value.startswith(name):
                return str(self.folder / path) + value[len(name) :]
        return value


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_eoles(commands: Any, name: str) -> None:
    written, files = PUBLISHED[name], Files(commands)
    data = commands.config(name, None)["data"]
    data["train"] |= written.corpus
    top = files.of({"data": data, **written.top})

    def train(folder: str, training: dict[str, Any], **ours: Any) -> Any:
        given = {**written.training, **training}
        return commands.train(folder, commands.model({**written.model, **ours}), top=top, **given)

    alike = {**NOTHING, "dropout_steps": [0], "attention_dropout": [0.0]}
    stock, dense = train("stock", alike), train("dense", alike, sd_space="structured")
    assert dense.parts[:3] == ("opennmt_sd",) * 3
    assert dense.words == stock.words
    assert dense.losses == pytest.approx(stock.losses, rel=1e-4)
    ours = train("ours", {}, sd_space="structured", sd_recurrent_dropout=0.2)
    assert all(map(math.isfinite, ours.losses))
    assert ours.losses != dense.losses
    assert len(commands.predict(ours.step(2))) == 5


@pytest.mark.parametrize("place", ["validation", "training"])
def test_without_attention_and_input_feed(commands: Any, place: str) -> None:
    """Stock fails on it wherever it drops nothing: in validation, and with a rate of 0."""
    options = {"global_attention": None, "input_feed": 0}
    rates: dict[str, Any] = {"valid_steps": 1} if place == "validation" else NOTHING
    with pytest.raises(RuntimeError, match="view size"):
        commands.train("stock", commands.model(options), **rates)
    model = commands.model({**options, "sd_space": "structured"})
    ours = commands.train("ours", model, **rates)
    assert all(map(math.isfinite, ours.losses + ours.validations))
    assert len(commands.predict(ours.step(2))) == 5
