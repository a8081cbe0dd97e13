"""The language model's configuration: every key, its type, default, meaning and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from opennmt_sd.config.keys import key, section, store
from opennmt_sd.config.rules import CELL, COUNT, RATE, SEED, Rule, above_zero, at_least, one_of
from opennmt_sd.config.shared import CASES, OptimConfig, PatternConfig, PlacesConfig, RunConfig

MODES = ("train", "evaluate", "sample")  # the first trains, the others need a checkpoint


def _are_widths(value: Any) -> bool:
    widths = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return bool(widths) and all(isinstance(width, int) and width > 0 for width in widths)


@dataclass
class LMDropoutConfig:
    """What the language model drops, and where."""

    nr: PatternConfig = section(PatternConfig, "the input of every layer")
    rh: PatternConfig = section(PatternConfig, "h before weight_hh")
    fc: PatternConfig = section(PatternConfig, "the last layer's output, before the vocabulary")
    input: PatternConfig = section(PatternConfig, "the first layer's input")
    words: PatternConfig = section(PatternConfig, "whole words")
    weight: float = key("DropConnect on weight_hh", 0.0, RATE)


@dataclass
class LMModelConfig:
    """The shape of a language model."""

    embedding: int = key("the width of a word's vector", MISSING, COUNT)
    hidden: Any = key(
        "the layers' width, or a list of one for each", MISSING,
        Rule("must be a width of 1 or more, or a list of them: [64,32]", _are_widths),
    )  # fmt: skip
    layers: int | None = key("where hidden is one width", None, COUNT)
    cell: str = key("of the recurrent layers", "lstm", CELL)
    tied: bool = key("embedding and output share their weights", False)
    ar: float = key("activation regularisation", 0.0, at_least(0))
    tar: float = key("temporal activation regularisation", 0.0, at_least(0))
    init: float | None = key(
        "", None, above_zero("the bound of the first weights; null has other rules")
    )
    dropout: LMDropoutConfig = section(LMDropoutConfig, CASES)


@dataclass
class LMDataConfig(PlacesConfig):
    """The corpus, how it is read, and how it is cut into batches."""

    level: str = key("what a text is cut into", "word", one_of("word", "char"))
    min_count: int | None = key(
        "rarer words are <unk>; null: 1, or 2 where valid or test hold others", None, COUNT
    )
    max_words: int | None = key("the vocabulary's size; rarer words are <unk>", None, at_least(3))
    batch_size: int = key("streams of text side by side", 20, COUNT)
    unroll: int = key("steps of an update", 35, COUNT)
    random_unroll: bool = key("lengths around it; the learning rate follows them", False)
    eval_batch_size: int = key("of valid", 10, COUNT)
    test_batch_size: int = key("of test", 1, COUNT)


@dataclass
class LMOptimConfig(OptimConfig):
    """How the weights are changed."""

    reduction: str = key("of the loss over a batch", "mean", one_of("mean", "sum_over_time"))


@dataclass
class SampleConfig:
    """The text to write at the end of a training, and with mode=sample."""

    words: int = key("how many; 0 writes none", 100, at_least(0))
    prompt: str = key("what it begins with", "")
    temperature: float = key("", 1.0, at_least(0, "; 0 takes the likeliest word"))
    top_k: int = key("the likeliest to choose from; 0: all", 0, at_least(0))
    seed: int = key("", 0, SEED)


@dataclass
class LMConfig(RunConfig):
    """Everything that ``train_lm`` reads."""

    mode: str = key("what to do", "train", one_of(*MODES))
    direction: str = key(
        "which way the score is better, for a search", "minimize",
        Rule("perplexity is better when lower: minimize", lambda value: value == "minimize"),
    )  # fmt: skip
    optim: LMOptimConfig = section(LMOptimConfig)
    model: LMModelConfig = section(LMModelConfig)
    data: LMDataConfig = section(LMDataConfig)
    sample: SampleConfig = section(SampleConfig)


def register() -> None:
    """Make the language model's schema known to Hydra, as ``lm_schema``."""
    store("lm_schema", LMConfig)
