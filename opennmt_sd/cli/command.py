"""How a trainer's command begins and ends: Hydra runs it; every end is a text and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRAS = {"lm": "train", "tagger": "tagger"}


@contextmanager
def reported(command: str, task: str) -> Iterator[None]:
    """Run a main of Hydra's; where it fails as foreseen, end with a text and a code.

    ``HYDRA_FULL_ERROR=1`` in the environment gives Hydra's traceback instead.

    Args:
        command: its name, for the text.
        task: ``"lm"`` or ``"tagger"``.

    Raises:
        SystemExit: with one of the exit codes of ``opennmt_sd.cli.errors``.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and prints none
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")  # of optuna 2, in a search
    logging.raiseExceptions = False  # a log on a full disk: no traceback for each line
    number = 0
    try:
        try:
            yield
        finally:
            number = _end_sweep()
    except KeyboardInterrupt:
        _end(command, "stopped by SIGINT; no training was running, and nothing is lost", 130)
    except ModuleNotFoundError as error:
        if before == "1" or (error.name or "").startswith("opennmt_sd"):
            raise
        _end(command, f"the package {error.name} is missing: pip install 'opennmt_sd"
             f"[{EXTRAS[task]}]'", 2)  # fmt: skip
    except Exception as error:
        if before == "1":
            raise
        _explained(command, task, error, number)
        raise
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
        logging.raiseExceptions = True


def _end_sweep() -> int:
    """Close a sweep, if there was one; give the number of the signal that has stopped it."""
    module: Any = sys.modules.get("opennmt_sd.cli.sweep")  # Hydra imports it, with our callback
    if not module or not (sweep := module.Sweep.current):
        return 0
    module.Sweep.current = None
    sweep.end()
    return int(sweep.received)


def _explained(command: str, task: str, error: Exception, number: int) -> None:
    """End with a text, where the error is one that is foreseen.

    Args:
        number: of the signal that has stopped a sweep, or 0.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from opennmt_sd.cli.errors import FailedRunError, StoppedRunError, written
    from opennmt_sd.config.checks import ConfigError
    from opennmt_sd.config.composing import fault

    if isinstance(error, StoppedRunError):
        _end(
            command,
            "the sweep is stopped, and what its runs have reached is written; the same command "
            "goes on with resume=auto and the same name",
            128 + number if number else error.code,
        )
    if isinstance(error, FailedRunError):
        _end(command, "a run of the sweep has failed; what it said stands above", 1)
    if isinstance(error, ConfigError):
        _end(command, str(error), 2)
    if isinstance(error, HydraException | OmegaConfBaseException):
        _end(command, str(ConfigError([fault(error, task)])), 2)
    if isinstance(error, OSError):
        _end(command, written(error), 1)


def _end(command: str, text: str, code: int) -> None:
    from opennmt_sd.cli.ranks import say
    from opennmt_sd.training.ranks import is_first_process

    if is_first_process():
        say(command, text)
    raise SystemExit(code) from None
