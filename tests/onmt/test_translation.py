"""A sentence has the same translation in every batch: the same words, the same finite scores."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STOCK = {"encoder_type": "brnn", "decoder_type": "rnn"}
MODELS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, no input feed": {"input_feed": 0},
    "stock": STOCK,
    "stock, no input feed": {**STOCK, "input_feed": 0},
    "sparse attention": {"global_attention_function": "sparsemax"},
    "GRU": {"rnn_type": "GRU"},
    "GRU, no input feed": {"rnn_type": "GRU", "input_feed": 0},
    "stock GRU": {**STOCK, "rnn_type": "GRU"},
    "coverage, gate": {"coverage_attn": True, "context_gate": "both"},
    "transformer": {
        "encoder_type": "transformer", "decoder_type": "transformer", "heads": 2,
        "transformer_ff": 16, "word_vec_size": 12, "position_encoding": True,
    },
    "copies": {"copy_attn": True},
    "copies, stock's decoder": {"copy_attn": True, "reuse_copy_attn": True, "decoder_type": "rnn"},
}  # fmt: skip

WU, SUMMARY = ({"coverage_penalty": kind, "beta": 0.3} for kind in ("wu", "summary"))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "replace_unk": {"replace_unk": True},
    "attn_debug": {"attn_debug": True},
    "coverage wu": WU,
    "coverage wu, stepwise": {**WU, "stepwise_penalty": True},
    "coverage summary": SUMMARY,
    "coverage summary, stepwise": {**SUMMARY, "stepwise_penalty": True},
    "ratio": {"ratio": 1.2},
    "no length penalty": {"length_penalty": "none"},
    "length wu": {"length_penalty": "wu", "alpha": 0.7},
    "min_length": {"min_length": 5},
    "no ratio of lengths": {"max_length_ratio": 0},
    "block_ngram_repeat": {"block_ngram_repeat": 2},
    "tgt": {"tgt": True},
    "tgt_file_prefix": {"tgt": True, "tgt_file_prefix": True, "min_length": 2},
    "sampling of the likeliest": {"random_sampling_topk": 1, "min_length": 2},
}
ALL = {"replace_unk": True, **WU, "ratio": 1.5, "block_ngram_repeat": 2, "min_length": 2}
GREEDY, BEAM, BEST = {"beam_size": 1}, {"beam_size": 5}, {"beam_size": 5, "n_best": 3}

draw = random.Random(0)
WORDS = [f"w{i}" for i in range(20)] + ["new1", "new2", "new3"]
SOURCE = [draw.choices(WORDS, k=k) for k in (1, 2, 3, 5, 6, 8, 12)]
TARGET = [draw.choices(WORDS, k=draw.randint(1, 4)) for _ in SOURCE]

NUMBERS = re.compile(r"-?\d+\.\d{4,}\b")

# By line: the translations with their scores, and the numbers of the log.
Found = list[tuple[list[str], list[float]]]


def said(log: list[str]) -> list[str]:
    """What the log says of each sentence, with its attention where that was asked for."""
    sentences = [text for text in log if " PPL: " not in text]  # those are of the whole
    return "\n".join(sentences).split("\nSENT ")[1:]


@pytest.fixture
def translated(commands: Any, untrained: Callable[..., Path]) -> Callable[..., Found]:
    """The translations of the source in an order, given back in its own."""

    def translated(model: str, order: list[int], **options: Any) -> Found:
        if options.pop("tgt", False):
            options["tgt"] = commands.folder / "target"
            options["tgt"].write_text("".join(" ".join(TARGET[i]) + "\n" for i in order))
        out = commands.translate(
            untrained(**MODELS[model]),
            source="".join(" ".join(SOURCE[i]) + "\n" for i in order),
            **{"max_length": 9, "with_score": True, "verbose": True, **options},
        )
        n = options.get("n_best", 1)
        assert len(out.lines) == n * len(order)
        rows = [[float(number) for number in NUMBERS.findall(text)] for text in said(out.log)]
        found: dict[int, tuple[list[str], list[float]]] = {}
        for place, i in enumerate(order):
            pairs = [line.split("\t") for line in out.lines[n * place : n * (place + 1)]]
            scores = [float(score) for _, score in pairs]
            found[i] = [text for text, _ in pairs], scores + rows[place]
        return [found[i] for i in range(len(order))]

    return translated


def same_in_every_batch(translated: Callable[..., Found], model: str, **options: Any) -> Found:
    order = list(range(len(SOURCE)))
    alone = translated(model, order, batch_size=1, **options)
    assert all(math.isfinite(number) for _, numbers in alone for number in numbers)
    shuffled = random.Random(1).sample(order, len(order))
    for batches in ({"batch_size": 4}, {"batch_type": "tokens", "batch_size": 30}):
        found = translated(model, shuffled, **batches, **options)
        for (lines, numbers), (expected, their) in zip(found, alone, strict=True):
            assert lines == expected, batches
            assert numbers == pytest.approx(their, abs=2e-4), batches
    return alone


@pytest.mark.parametrize(
    ("name", "beam"),
    [("plain", BEAM), ("coverage wu", BEAM), *itertools.product(OPTIONS, (GREEDY, BEST))],
    ids=str,
)
def test_ours(translated: Callable[..., Found], name: str, beam: dict[str, int]) -> None:
    alone = same_in_every_batch(translated, "ours", **OPTIONS[name], **beam)
    assert len({tuple(lines) for lines, _ in alone}) > 3, "or all translations are one"


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in MODELS if name != "ours"])
def test_each_model(translated: Callable[..., Found], model: str) -> None:
    same_in_every_batch(translated, model, **ALL, **BEST)
    same_in_every_batch(translated, model, attn_debug=True, tgt=True, **BEAM)
