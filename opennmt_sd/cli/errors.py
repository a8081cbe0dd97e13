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

In a sweep, a run that fails is told at once and the others go on; the sweep ends with 1. A signal
ends the sweep.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode

from opennmt_sd.training.checkpoint import CheckpointError, SaveError
from opennmt_sd.training.loggers import LoggerError
from opennmt_sd.training.meter import DivergedError
from opennmt_sd.training.stopping import Stopped


class ConfigError(ValueError):
    """A configuration that cannot be used: all of its faults."""

    def __init__(self, faults: list[str]) -> None:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"the configuration has {count}:\n  " + "\n  ".join(faults))
        self.faults = faults


class FailedRunError(CompactHydraException):
    """A run of a sweep has failed: Hydra goes on with the others and prints the text at the end."""


def guarded(
    command: str, function: Callable[[], Any], *, unusable: tuple[type[Exception], ...] = ()
) -> Any:
    """What a function returns; where it fails as foreseen, the process ends with a text and a code.

    Args:
        command: its name, for the text.
        unusable: further errors that mean the input cannot be used.
    """
    try:
        return function()
    except Stopped as stopped:
        _say(command, f"{stopped}. Go on from there with resume=auto and the same name")
        raise SystemExit(stopped.code) from None
    except unusable as error:
        _fail(command, error, 2)
    except (ConfigError, CheckpointError, LoggerError) as error:
        _fail(command, error, 2)
    except (SaveError, DivergedError, OSError) as error:
        _fail(command, error, 1)


def _fail(command: str, error: Exception, code: int) -> NoReturn:
    _say(command, str(error))
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise FailedRunError(str(error)) from None
    raise SystemExit(code) from None


def _say(command: str, text: str) -> None:
    sys.stdout.flush()
    print(f"{command}: {text}", file=sys.stderr)
