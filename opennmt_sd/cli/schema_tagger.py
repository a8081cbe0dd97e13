"""The types of every key of the tagger's configuration; see ``schema.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from opennmt_sd.cli.schema import PatternConfig, PlacesConfig, RunConfig, store


@dataclass
class TaggerDropoutConfig:
    """What the tagger drops, and where."""

    nr: PatternConfig = field(default_factory=PatternConfig)  # the input of every LSTM layer
    rh: PatternConfig = field(default_factory=PatternConfig)  # h before weight_hh
    fc: PatternConfig = field(default_factory=PatternConfig)  # the last layer's output
    chars: float = 0.0  # character embeddings: ordinary dropout


@dataclass
class TaggerModelConfig:
    """The shape of a tagger."""

    word_dim: int = 100
    fine_tune: bool = True
    chars: str = "cnn"
    char_dim: int = 30
    char_width: int = 30
    char_window: int = 3
    hidden: int = 200
    layers: int = 1
    projection: int = 0
    head: str = "crf"
    dropout: TaggerDropoutConfig = field(default_factory=TaggerDropoutConfig)


@dataclass
class ColumnsConfig:
    """Where words and tags stand in a row: 1 is the first column, -1 the last; null finds it."""

    word: int | None = None  # null: the first, or the second behind running numbers
    tag: int | None = None  # null: the last
    comment: str | None = None  # what comment lines begin with; null: "#" behind running numbers


@dataclass
class TaggerDataConfig(PlacesConfig):
    """CoNLL column files, and what is made of their words."""

    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    glove: str | None = MISSING  # word vectors
    scheme: str = "bioes"  # the model's tags
    lower: bool = True  # words, not their characters
    digits: bool = False  # all become 0
    unknown: float = 0.5  # how often a rare word stands in for the unknown one
    batch_size: int = 10  # sentences
    eval_batch_size: int = 64


@dataclass
class PredictConfig:
    """What mode=predict reads and writes."""

    input: str | None = None
    output: str | None = None  # null: predicted.conll in the run's folder
    format: str = "auto"
    html: str | None = None
    language: str = "en"


@dataclass
class TaggerRunConfig(RunConfig):
    """Everything that ``train_tagger`` reads."""

    direction: str = "maximize"  # F1
    model: TaggerModelConfig = field(default_factory=TaggerModelConfig)
    data: TaggerDataConfig = field(default_factory=TaggerDataConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)


def register() -> None:
    """Make the tagger's schema known to Hydra, as ``tagger_schema``."""
    store("tagger_schema", TaggerRunConfig)
