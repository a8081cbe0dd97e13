"""The types of every key of the configurations: Hydra refuses other names and other types.

What values are allowed beyond their type is in ``validate.py``; what they mean is said here and in
the YAML files of ``conf/``. :func:`register` puts the schema into Hydra's ConfigStore.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


@dataclass
class PatternConfig:
    """What one dropout drops: a rate in [0, 1), and one of the four cases."""

    p: float = 0.0
    space: str = "structured"
    time: str = "random"


@dataclass
class ScheduleConfig:
    """What the learning rate of an epoch is multiplied by."""

    name: str = "constant"
    constant_epochs: int = 0  # step_down: so many epochs at the full rate,
    factor: float = 1.0  # then divided by this before each further one
    decay: float = 0.0  # inverse: 1 / (1 + decay * epoch)


@dataclass
class OptimConfig:
    """How the weights are changed."""

    name: str = MISSING
    lr: float = MISSING
    momentum: float = 0.0  # sgd, nt_asgd
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adam
    weight_decay: float = 0.0
    clip: float | None = None  # the largest norm of the whole gradient
    reduction: str = "mean"  # of the loss over a batch
    non_monotone: int = 5  # nt_asgd: evaluations that may pass without a better score
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass
class TrainerConfig:
    """How long to train, on what, and what happens on the way."""

    epochs: int = MISSING
    max_updates: int | None = None
    evaluate_every: int | None = None  # updates; null: after each epoch
    save_every: int | None = None  # updates; null: after each evaluation
    log_every: int = 50  # updates
    patience: int | None = None  # evaluations without a better score
    test: bool = True  # score the best weights on the test data, once, at the end
    accelerator: str = "auto"
    devices: int = 1  # on this machine; under torchrun what it says
    precision: str = "32-true"
    threads: int | None = None  # null: torch's choice
    engine: str = "auto"


@dataclass
class LMDropoutConfig:
    """What the language model drops, and where."""

    nr: PatternConfig = field(default_factory=PatternConfig)  # the input of every layer
    rh: PatternConfig = field(default_factory=PatternConfig)  # h before weight_hh
    fc: PatternConfig = field(default_factory=PatternConfig)  # the last layer's output
    input: PatternConfig = field(default_factory=PatternConfig)  # the first layer's input
    words: PatternConfig = field(default_factory=PatternConfig)  # whole words
    weight: float = 0.0  # DropConnect on weight_hh


@dataclass
class LMModelConfig:
    """The shape of a language model."""

    embedding: int = MISSING
    hidden: Any = MISSING  # one width, or a list of one for each layer
    layers: int | None = None  # where hidden is one width
    tied: bool = False
    ar: float = 0.0
    tar: float = 0.0
    init: float | None = None
    dropout: LMDropoutConfig = field(default_factory=LMDropoutConfig)


@dataclass
class PlacesConfig:
    """Where data lie: a folder, or three files; all null is the sample that ships."""

    # MISSING, since a file's `???` does not override a default.
    path: str | None = MISSING
    train: str | None = MISSING
    valid: str | None = MISSING
    test: str | None = MISSING
    encoding: str = "utf-8"


@dataclass
class LMDataConfig(PlacesConfig):
    """The corpus, how it is read, and how it is cut into batches."""

    level: str = "word"  # or char
    min_count: int | None = None  # rarer words are <unk>; null: 1, or 2 where <unk> is needed
    max_words: int | None = None  # the size of the vocabulary; rarer words are <unk>
    batch_size: int = 20
    unroll: int = 35
    random_unroll: bool = False
    eval_batch_size: int = 10
    test_batch_size: int = 1


@dataclass
class SampleConfig:
    """The text to write at the end of a training, or with mode=sample."""

    words: int = 100
    prompt: str = ""
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass
class RunConfig:
    """What every trainer's command reads."""

    name: str = MISSING
    mode: str = "train"
    seed: int = 1
    resume: str | None = None
    checkpoint: str | None = None
    split: str = "test"
    direction: str = MISSING  # which way the score is better, for a search: minimize, maximize
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class LMConfig(RunConfig):
    """Everything that ``train_lm`` reads."""

    direction: str = "minimize"  # the perplexity
    model: LMModelConfig = field(default_factory=LMModelConfig)
    data: LMDataConfig = field(default_factory=LMDataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


def register() -> None:
    """Make the language model's schema known to Hydra, as ``lm_schema``."""
    store("lm_schema", LMConfig)


def store(name: str, schema: type[RunConfig]) -> None:
    """Put a schema into Hydra's ConfigStore.

    At its top YAML files may add keys: another project has its own beside ours there, and an
    experiment may give a name to a value that it needs twice.
    """
    node = OmegaConf.structured(schema)
    OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name=name, node=node, provider="opennmt_sd")
