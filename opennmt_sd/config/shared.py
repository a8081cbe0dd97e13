"""What both trainers' configurations hold: every key, its type, default, meaning and range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from opennmt_sd.config.keys import key, section
from opennmt_sd.config.rules import COUNT, RATE, SEED, Rule, above_zero, at_least, one_of, within


@dataclass
class PatternConfig:
    """What one dropout drops: a rate, and one of the four cases."""

    INLINE: ClassVar[bool] = True  # one line of --help

    p: float = key("the share dropped", 0.0, RATE)
    space: str = key(
        "the same units for the whole batch, or each sample its own", "structured",
        one_of("structured", "random"),
    )  # fmt: skip
    time: str = key("new ones at each step, or the same", "random", one_of("random", "fixed"))
    count: str = key(
        "each unit by itself, or as many in every set", "bernoulli", one_of("bernoulli", "exact")
    )


CASES = "p: in [0, 1); space: structured, random; time: random, fixed; count: bernoulli, exact"


@dataclass
class ScheduleConfig:
    """What the learning rate of an epoch is multiplied by."""

    name: str = key("", "constant", one_of("constant", "step_down", "inverse"))
    constant_epochs: int = key("of step_down: so many at the full rate", 0, at_least(0))
    factor: float = key(
        "then the rate is divided by this before each further one", 1.0,
        at_least(1, ": the rate is divided by it"),
    )  # fmt: skip
    decay: float = key("of inverse: 1 / (1 + decay * epoch)", 0.0, at_least(0))


@dataclass
class OptimConfig:
    """How the weights are changed."""

    name: str = key("", MISSING, one_of("sgd", "adam", "nt_asgd"))
    lr: float = key("", MISSING, above_zero("the learning rate"))
    momentum: float = key("of sgd, nt_asgd", 0.0, within(0, 1))
    betas: list[float] = key(
        "of adam", [0.9, 0.999],
        Rule("must be two numbers in [0, 1)",
             lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas)),
    )  # fmt: skip
    weight_decay: float = key("the L2 penalty's factor", 0.0, at_least(0))
    clip: float | None = key(
        "", None, above_zero("the largest norm of the gradient; null does not clip")
    )
    reduction: str = key("of the loss over a batch", "mean")
    non_monotone: int = key(
        "of nt_asgd: evaluations that may pass without a better score", 5, at_least(0)
    )
    schedule: ScheduleConfig = section(ScheduleConfig)


@dataclass
class TrainerConfig:
    """How long to train, on what, and what happens on the way."""

    epochs: int = key("passes over the training data", MISSING, COUNT)
    max_updates: int | None = key("ends the training earlier", None, COUNT)
    evaluate_every: int | None = key("updates; null: after each epoch", None, COUNT)
    save_every: int | None = key("updates; null: after each evaluation", None, COUNT)
    log_every: int = key("updates", 50, COUNT)
    patience: int | None = key("evaluations without a better score that end it", None, COUNT)
    test: bool = key("score the best weights on the test data, once, at the end", True)
    accelerator: str = key("", "auto", one_of("auto", "cpu", "cuda", "gpu", "mps"))
    devices: int = key("processes on this machine; under torchrun what it says", 1, COUNT)
    precision: str = key(
        "", "32-true", one_of("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed")
    )
    matmul_precision: str | None = key(
        "of float32 products: medium multiplies in bfloat16 on a CPU that has it, high and medium "
        "on a GPU in TF32; null: as torch has it, or the checkpoint that is resumed",
        None, one_of("highest", "high", "medium"),
    )  # fmt: skip
    threads: int | None = key("null: torch's choice", None, COUNT)
    engine: str = key(
        "of the products", "auto", one_of("auto", "naive", "portable", "cpu", "dense")
    )


@dataclass
class PlacesConfig:
    """Where data lie: a folder, or three files; all null is the sample that ships."""

    # MISSING, since a file's `???` does not override a default.
    path: str | None = key("a folder", MISSING)
    train: str | None = key("in its place: a file,", MISSING)
    valid: str | None = key("another,", MISSING)
    test: str | None = key("and another", MISSING)
    encoding: str = key("of the files", "utf-8")


@dataclass
class RunConfig:
    """What every trainer's command reads."""

    mode: str = key("what to do", "train")
    seed: int = key("of weights, order and dropout", 1, SEED)
    name: str = key("the run's folder, below the folder of runs", MISSING)
    resume: str | None = key(
        "auto: go on in this run's folder; or the path of a checkpoint", None,
        Rule("is empty (of a variable that is not set?): use auto, the path of a checkpoint, or "
             "leave it out", lambda value: bool(value.strip())),
    )  # fmt: skip
    checkpoint: str | None = key("of the modes that need one; its folder does, too", None)
    split: str = key("of mode=evaluate", "test", one_of("valid", "test"))
    direction: str = key("which way the score is better, for a search", MISSING)
    optim: OptimConfig = section(OptimConfig)
    trainer: TrainerConfig = section(TrainerConfig)
    logger: dict[str, Any] = field(
        default_factory=dict, metadata={"meaning": "trackers beside metrics.csv"}
    )
