"""The record of a run in its folder: what it was configured with, and that it is there alone."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from opennmt_sd import atomic
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.training.ranks import is_first_process

FOLDER = ".hydra"

log = logging.getLogger(__name__)


def run_folder() -> Path:
    """Give Hydra's folder of this run."""
    return Path(HydraConfig.get().runtime.output_dir)


def write_record(cfg: DictConfig) -> None:
    """Write ``.hydra/``, as Hydra would: but when a run has been accepted, not before."""
    folder = run_folder() / FOLDER
    folder.mkdir(exist_ok=True)
    whole = HydraConfig.get()
    for name, part in (
        ("config", cfg), ("hydra", OmegaConf.create({"hydra": whole})),
        ("overrides", whole.overrides.task),
    ):  # fmt: skip
        atomic.write_text(folder / f"{name}.yaml", OmegaConf.to_yaml(part))


def begin(cfg: DictConfig) -> None:
    """Write the record of a run in a folder that has none. What is there stays: it may be that of a
    training, which this run is about to ask something of, or to be refused by."""
    if is_first_process() and not (run_folder() / FOLDER).exists():
        write_record(cfg)


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep a second process out of a folder; the lock goes with this one, however it ends.

    Raises:
        ConfigError: another process trains in it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fault = f"name={name}: another process trains in {folder} now: take another name"
            raise ConfigError([fault]) from None
        except OSError as error:  # some network file systems have no such locks
            log.debug(f"{folder} is not locked: {error}")
        yield
    finally:
        os.close(descriptor)
