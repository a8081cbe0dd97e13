"""How a command ends: exit codes, and one text in place of a traceback.

=====  =====================================================================================
code   meaning
=====  =====================================================================================
0      done
1      something failed on the way: a full disk, a diverged loss
2      the configuration, the data or a checkpoint cannot be used; no time was spent
130    stopped by Ctrl-C; a checkpoint was written
143    stopped by SIGTERM; a checkpoint was written
=====  =====================================================================================

In a sweep, a run that fails is reported at once and the others go on; the sweep ends with 1. A
signal ends the sweep, when all that run have written their checkpoints.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from opennmt_sd.cli.plain import Formatter
from opennmt_sd.cli.ranks import say
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.recipes.record import FOLDER
from opennmt_sd.training.checkpoint import CheckpointError, SaveError
from opennmt_sd.training.loggers import LoggerError
from opennmt_sd.training.meter import DivergedError
from opennmt_sd.training.stopping import Stopped, noted, take_note


class FailedRunError(CompactHydraException):
    """A run of a sweep has failed: Hydra goes on with the others and raises it at the end."""


class StoppedRunError(CompactHydraException):
    """A signal has stopped a run of a sweep in a process of its own; the others stop, too.

    Attributes:
        code: the exit code of the sweep.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)  # all of them, for pickle
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


def guarded(
    command: str, function: Callable[[], Any], *, unusable: tuple[type[Exception], ...] = ()
) -> Any:
    """Return what a function does; where it fails as foreseen, end with a text and a code.

    Args:
        command: its name, for the text.
        unusable: further errors that mean the input cannot be used.
    """
    apart = multiprocessing.parent_process() is not None  # a run of a sweep, beside others
    if apart:
        take_note()
        _number_lines()
        if number := noted():
            raise StoppedRunError("stopped before it began", 128 + number)
    try:
        return function()
    except Stopped as stopped:
        say(command, f"{stopped}. Go on from there with resume=auto and the same name")
        if apart:
            raise StoppedRunError(str(stopped), stopped.code) from None
        raise SystemExit(stopped.code) from None
    except unusable as error:
        _fail(command, error, 2)
    except (ConfigError, CheckpointError, LoggerError) as error:
        _fail(command, error, 2)
    except (SaveError, DivergedError) as error:
        _fail(command, error, 1)
    except OSError as error:
        _fail(command, OSError(written(error)), 1)


def _number_lines() -> None:
    """Say in each line on the console of which run of a sweep it is."""
    lines = Formatter(f"[%(asctime)s] #{HydraConfig.get().job.num} %(message)s", "%H:%M:%S")
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setFormatter(lines)


def written(error: OSError) -> str:
    """Say what could not be written or read, why, and what to do."""
    where = f"{os.path.abspath(error.filename)}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}. Is the disk full or over its quota, or the folder not "
        "yours to write to? Mend that; a training that had begun goes on with resume=auto and the "
        "same name"
    )


def check_name(cfg: DictConfig) -> None:
    """Refuse a run's name that is no place below the folder of runs.

    Raises:
        ConfigError: it is empty or absolute, or leads up, or into a run's record.
    """
    name = str(cfg.name)
    parts = PurePath(name).parts
    if not name.strip("/. ") or name.startswith("/") or ".." in parts:
        raise ConfigError([f"name={name}: must be a path below the folder of runs, such as a/b"])
    if FOLDER in parts:
        rule = f"{FOLDER} is where a run keeps what it was configured with; leave that part out"
        raise ConfigError([f"name={name}: {rule}"])


def _fail(command: str, error: Exception, code: int) -> NoReturn:
    say(command, str(error))
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise FailedRunError(str(error)) from None
    raise SystemExit(code) from None
