"""The tagger's configuration: every key, its type, default, meaning and range."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from opennmt_sd.config.keys import key, section, store
from opennmt_sd.config.rules import CELL, COUNT, RATE, Rule, at_least, one_of
from opennmt_sd.config.shared import CASES, OptimConfig, PatternConfig, PlacesConfig, RunConfig

MODES = ("train", "evaluate", "predict")  # the first trains, the others need a checkpoint


@dataclass
class TaggerDropoutConfig:
    """What the tagger drops, and where."""

    nr: PatternConfig = section(PatternConfig, "the input of every recurrent layer")
    rh: PatternConfig = section(PatternConfig, "h before weight_hh")
    fc: PatternConfig = section(PatternConfig, "the last layer's output, before the tags")
    chars: float = key("character embeddings: ordinary dropout", 0.0, RATE)


@dataclass
class TaggerModelConfig:
    """The shape of a tagger."""

    word_dim: int = key("the width of a word's vector", 100, COUNT)
    fine_tune: bool = key("word vectors are trained, too", True)
    chars: str = key("what reads characters", "cnn", one_of("cnn", "lstm", "none"))
    char_dim: int = key("the width of a character's vector", 30, COUNT)
    char_width: int = key("what comes out of them; even for chars=lstm", 30, COUNT)
    char_window: int = key("characters a filter sees; odd for chars=cnn", 3, COUNT)
    cell: str = key("of the recurrent layers", "lstm", CELL)
    hidden: int = key("their width, a direction", 200, COUNT)
    layers: int = key("", 1, COUNT)
    projection: int = key("the width of a tanh layer before the tags; 0: none", 0, at_least(0))
    head: str = key("what chooses tags", "crf", one_of("crf", "softmax"))
    dropout: TaggerDropoutConfig = section(TaggerDropoutConfig, CASES)


@dataclass
class ColumnsConfig:
    """Where words and tags stand in a row: 1 is the first column, -1 the last; null finds it."""

    word: int | None = key("null: the first, or the second behind running numbers", None)
    tag: int | None = key("null: the last", None)
    comment: str | None = key("a comment's begin; null: # behind running numbers", None)


@dataclass
class TaggerDataConfig(PlacesConfig):
    """CoNLL column files, and what is made of their words."""

    columns: ColumnsConfig = section(ColumnsConfig)
    glove: str | None = key("a file of word vectors, plain, .gz or .xz", MISSING)
    scheme: str = key("the model's tags", "bioes", one_of("iob1", "iob2", "bioes", "bilou"))
    lower: bool = key("lower-case words, not their characters", True)
    digits: bool = key("all become 0", False)
    unknown: float = key(
        "how often a rare word stands in for the unknown one", 0.5,
        Rule("must lie in [0, 1]: it is a rate", lambda value: 0 <= value <= 1),
    )  # fmt: skip
    batch_size: int = key("sentences", 10, COUNT)
    eval_batch_size: int = key("sentences", 64, COUNT)


@dataclass
class TaggerOptimConfig(OptimConfig):
    """How the weights are changed."""

    reduction: str = key("of the loss over a batch", "mean", one_of("mean", "sum"))


@dataclass
class PredictConfig:
    """What mode=predict reads and writes."""

    input: str | None = key("CoNLL columns, or plain text (.txt), which spaCy tokenises", None)
    output: str | None = key(
        "null: predicted.conll in the folder of this run, which the log names", None
    )
    format: str = key("of the input", "auto", one_of("auto", "conll", "text"))
    html: str | None = key("a page to look at", None)
    language: str = key("of plain text", "en")


@dataclass
class TaggerRunConfig(RunConfig):
    """Everything that ``train_tagger`` reads."""

    mode: str = key("what to do", "train", one_of(*MODES))
    direction: str = key(
        "which way the score is better, for a search", "maximize",
        Rule("F1 is better when higher: maximize", lambda value: value == "maximize"),
    )  # fmt: skip
    optim: TaggerOptimConfig = section(TaggerOptimConfig)
    model: TaggerModelConfig = section(TaggerModelConfig)
    data: TaggerDataConfig = section(TaggerDataConfig)
    predict: PredictConfig = section(PredictConfig)


def register() -> None:
    """Make the tagger's schema known to Hydra, as ``tagger_schema``."""
    store("tagger_schema", TaggerRunConfig)
