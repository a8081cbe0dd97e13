"""Finds every fault of a configuration at once, before time is spent.

Names and types are checked by Hydra already, and a value by its key's rule (``rules.py``); here is
what concerns several keys, files and the machine. Each fault names its key, the value, the rule,
and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf

from opennmt_sd.config.composing import unknown_keys
from opennmt_sd.config.keys import keys, schema_of
from opennmt_sd.training.checkpoint import in_folder
from opennmt_sd.training.loggers import TRACKERS, LoggerError, require
from opennmt_sd.training.ranks import is_first_process
from opennmt_sd.training.resuming import LAST


class ConfigError(ValueError):
    """A configuration that cannot be used: all of its faults."""

    def __init__(self, faults: list[str]) -> None:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"the configuration has {count}:\n  " + "\n  ".join(faults))
        self.faults = faults


class Checks:
    """Gathers faults of a configuration, key by key. A missing value is one fault."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.missing = OmegaConf.missing_keys(cfg)
        self.faults = [
            f"{key}: missing; give it a value: {key}=..." for key in sorted(self.missing)
        ]

    def value(self, key: str) -> Any:
        """Return the value of a dotted key; None where it is missing."""
        return None if key in self.missing else OmegaConf.select(self.cfg, key)

    def fault(self, key: str, rule: str) -> None:
        """Note that the value of a key breaks a rule."""
        self.faults.append(f"{key}={self.value(key)}: {rule}")

    def take_missing(self, keys: Sequence[str]) -> list[str]:
        """Return which of some keys are missing; who asks reports them in a text of its own."""
        found = [key for key in keys if key in self.missing]
        self.faults = [f for f in self.faults if f.partition(": missing;")[0] not in found]
        return found

    def keys(self) -> None:
        """Hold every key to its rule, and refuse keys that nobody reads."""
        self.faults += unknown_keys(self.cfg, HydraConfig.get())
        for key in keys(schema_of(self.cfg)):
            value = self.value(key.name) if key.rule else None
            if value is not None and key.rule and (why := key.rule.fault(value)):
                self.fault(key.name, why)

    def finish(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: there are faults.
        """
        if self.faults:
            raise ConfigError(self.faults)


def check_run(checks: Checks, folder: Path) -> None:
    """Refuse what no trainer can do: every key's rule, the checkpoint to go on from, the machine.

    Args:
        folder: of the run.
    """
    checks.keys()
    _check_resume(checks, folder)
    if checks.value("optim.name") == "adam" and checks.value("optim.momentum"):
        checks.fault("optim.momentum", "adam has none: use optim.betas, or optim=sgd")
    _check_counts(checks)
    _check_device(checks)
    _check_loggers(checks)


def check_mode(checks: Checks, modes: Sequence[str], files: str) -> None:
    """Refuse a mode without the checkpoint that it needs.

    Args:
        modes: all there are; the first trains, the others need a checkpoint.
        files: the names that a checkpoint may have, for the text.
    """
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
        return  # its rule says so
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


def _check_counts(checks: Checks) -> None:
    for name in checks.value("model.dropout") or ():
        place = f"model.dropout.{name}"
        if (checks.value(f"{place}.count"), checks.value(f"{place}.space")) == ("exact", "random"):
            checks.fault(
                f"{place}.count",
                f"needs {place}.space=structured: sequences that each drop their "
                "own units have no set of one size to share",
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
