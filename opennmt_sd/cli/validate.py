"""Finds every fault of a configuration at once, before time is spent.

Types and names are checked by Hydra already (``schema.py``). Each fault names its key, the value,
the rule, and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf

from opennmt_sd.cli.composing import unknown_keys
from opennmt_sd.cli.errors import ConfigError
from opennmt_sd.cli.ranks import is_first_process
from opennmt_sd.dropout import SPACES, TIMES
from opennmt_sd.training.checkpoint import in_folder
from opennmt_sd.training.loggers import TRACKERS, LoggerError, require
from opennmt_sd.training.loop import LAST

OPTIMIZERS = ("sgd", "adam", "nt_asgd")
SCHEDULES = ("constant", "step_down", "inverse")
ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed")
ENGINES = ("auto", "naive", "portable", "cpu")


class Checks:
    """Gathers faults of a configuration, key by key. A missing value is one fault."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.missing = OmegaConf.missing_keys(cfg)
        self.faults = [
            f"{key}: missing; give it a value: {key}=..." for key in sorted(self.missing)
        ] + unknown_keys(cfg, HydraConfig.get())

    def value(self, key: str) -> Any:
        """The value of a dotted key; None where it is missing."""
        return None if key in self.missing else OmegaConf.select(self.cfg, key)

    def fault(self, key: str, rule: str) -> None:
        """Note that the value of a key breaks a rule."""
        self.faults.append(f"{key}={self.value(key)}: {rule}")

    def take_missing(self, keys: Sequence[str]) -> list[str]:
        """Return which of some keys are missing; who asks reports them in a text of its own."""
        found = [key for key in keys if key in self.missing]
        self.faults = [f for f in self.faults if f.partition(": missing;")[0] not in found]
        return found

    def choice(self, key: str, allowed: Sequence[str]) -> None:
        value = self.value(key)
        if value is not None and value not in allowed:
            self.fault(key, f"use one of {', '.join(allowed)}")

    def within(self, key: str, rule: str, low: float, high: float = math.inf) -> None:
        """low <= value < high; null passes."""
        value = self.value(key)
        if value is not None and not low <= value < high:
            self.fault(key, rule)

    def positive(self, key: str, what: str) -> None:
        """A finite number above 0; null passes."""
        value = self.value(key)
        if value is not None and not 0 < value < math.inf:
            self.fault(key, f"must be above 0: it is {what}")

    def rate(self, key: str) -> None:
        self.within(key, "must lie in [0, 1): it is the share dropped; 0 drops nothing", 0, 1)

    def pattern(self, key: str) -> None:
        self.rate(f"{key}.p")
        self.choice(f"{key}.space", SPACES)
        self.choice(f"{key}.time", TIMES)

    def counts(self, *keys: str, least: int = 1) -> None:
        for key in keys:
            self.within(key, f"must be {least} or more", least)

    def finish(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: there are faults.
        """
        if self.faults:
            raise ConfigError(self.faults)


def check_training(checks: Checks, folder: Path) -> None:
    """What every trainer reads: seed, resume, optim, trainer, logger.

    Args:
        folder: of the run.
    """
    checks.within("seed", "must lie in [0, 2**32)", 0, 2**32)
    _check_resume(checks, folder)

    checks.choice("optim.name", OPTIMIZERS)
    checks.positive("optim.lr", "the learning rate")
    checks.positive("optim.clip", "the largest norm of the gradient; null does not clip")
    checks.within("optim.momentum", "must lie in [0, 1)", 0, 1)
    checks.within("optim.weight_decay", "must be 0 or more", 0)
    checks.counts("optim.non_monotone", least=0)
    betas = checks.value("optim.betas")
    if betas is not None and (len(betas) != 2 or not all(0 <= beta < 1 for beta in betas)):
        checks.fault("optim.betas", "must be two numbers in [0, 1)")
    if checks.value("optim.name") == "adam" and checks.value("optim.momentum"):
        checks.fault("optim.momentum", "adam has none: use optim.betas, or optim=sgd")
    checks.choice("optim.schedule.name", SCHEDULES)
    checks.counts("optim.schedule.constant_epochs", least=0)
    checks.within("optim.schedule.decay", "must be 0 or more", 0)
    checks.within("optim.schedule.factor", "must be 1 or more: the rate is divided by it", 1)

    checks.counts(
        *(f"trainer.{key}" for key in (
            "epochs", "max_updates", "evaluate_every", "save_every", "log_every", "patience",
            "devices", "threads",
        ))
    )  # fmt: skip
    checks.choice("trainer.accelerator", ACCELERATORS)
    checks.choice("trainer.precision", PRECISIONS)
    checks.choice("trainer.engine", ENGINES)
    _check_device(checks)
    _check_loggers(checks)


def check_mode(checks: Checks, modes: Sequence[str], files: str) -> None:
    """What to do, and from which checkpoint.

    Args:
        modes: all there are; the first trains, the others need a checkpoint.
        files: the names that a checkpoint may have, for the text.
    """
    checks.choice("mode", modes)
    mode, source = checks.value("mode"), checks.value("checkpoint")
    if mode not in modes[1:] or "checkpoint" in checks.missing:
        return
    if not source:
        checks.fault("checkpoint", f"mode={mode} needs the path of a {files}")
    elif not Path(source).exists():
        checks.fault("checkpoint", "there is no such file")


def resume_source(resume: str | None, folder: Path) -> Path | None:
    """Give the checkpoint to go on from; None begins anew.

    Args:
        resume: the key's value.
        folder: of the run.
    """
    if resume is None:
        return None
    if resume == "auto":
        return folder / LAST
    return in_folder(Path(to_absolute_path(resume)), LAST)


def _check_resume(checks: Checks, folder: Path) -> None:
    resume = checks.value("resume")
    if resume is not None and not resume.strip():
        checks.fault("resume", "is empty (of a variable that is not set?): use auto, the path of a "
                     "checkpoint, or leave it out")  # fmt: skip
        return
    source = resume_source(resume, folder) if resume != "auto" else None
    if source is not None and not source.exists():
        checks.fault("resume", "there is no such file; use auto, or the path of a checkpoint")
    elif checks.value("mode") != "train" or not is_first_process():
        return
    elif (
        resume != "auto"
        and (folder / LAST).exists()
        and (source is None or source.resolve().parent != folder.resolve())
    ):
        checks.faults.append(
            f"name={checks.value('name')}: {folder} holds a training already: go on with it "
            "(resume=auto), or take another name"
        )


def _check_device(checks: Checks) -> None:
    import torch

    accelerator = checks.value("trainer.accelerator")
    if accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        checks.fault("trainer.accelerator", "torch sees no GPU here; use auto or cpu")
    devices = checks.value("trainer.devices")
    gpus = torch.cuda.device_count()
    if accelerator != "cpu" and gpus and devices is not None and devices > gpus:
        checks.fault("trainer.devices", f"torch sees {gpus} GPUs here")
    if devices is not None and devices > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        checks.fault(
            "trainer.devices", "a sweep has one process a run: train without -m, or with 1"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        checks.fault("trainer.accelerator", "torch sees no Apple GPU here; use auto or cpu")
    if checks.value("trainer.engine") == "cpu":
        from opennmt_sd.ops.cpu import native

        if not native():
            checks.fault("trainer.engine", "the native module is missing; use auto or portable")


def _check_loggers(checks: Checks) -> None:
    ours = {f"{cls.__module__}.{cls.__name__}": package for package, cls in TRACKERS.items()}
    for name, node in (checks.value("logger") or {}).items():
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target is None:
            checks.faults.append(
                f"logger.{name}: has no _target_; choose logger=tensorboard, logger=wandb, "
                "logger=mlflow, or name a class of your own"
            )
        elif target in ours:
            try:
                require(ours[target], name)
            except LoggerError as error:
                checks.faults.append(str(error))
