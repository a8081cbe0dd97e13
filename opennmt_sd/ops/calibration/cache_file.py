"""The file in which choices outlive a process: in the user's cache folder, for all programs of his.

Each choice is written at once, with those that others have written meanwhile. A file that cannot
be used costs its choices, and nothing else: they are measured anew.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opennmt_sd import atomic
from opennmt_sd.ops.calibration.trial import Times

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

FORMAT = 1  # one more where the file changes, or what is timed becomes much faster
PATIENCE = 1.0  # seconds to wait for another process that writes


class BusyError(OSError):
    """Another process holds the file."""


def path() -> Path | None:
    """Return where the file is or would be; None for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "opennmt_sd" / f"calibration-{FORMAT}.json"


def read() -> dict[str, Times]:
    """Return what was measured, by what it was measured for; nothing where there is no use of the
    file, which one line in the log says."""
    file = path()
    if file is None:
        return {}
    try:
        _check_ordinary(file)
        return _parsed(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:  # of JSON and of UTF-8 too
        _warn(f"{file} cannot be used ({error}): what it held is measured anew")
        return {}


def add(text: str, times: Times) -> None:
    """Write what was measured; where it cannot be written, say so once and go on."""
    file = path()
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.with_suffix(".lock")):
            _check_ordinary(file)
            measured = {**read(), text: times}
            content = {"format": FORMAT, "measured": {k: list(v) for k, v in measured.items()}}
            atomic.write_text(file, json.dumps(content, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        _warn(f"{file} cannot be written ({error}): what is chosen now holds for this process")


def _check_ordinary(file: Path) -> None:
    """Raises OSError: it is something else than a file, say a pipe: to open it would wait for ever,
    or it may not be looked at."""
    if file.exists() and not file.is_file():
        raise OSError("it is no ordinary file")


def _parsed(content: Any) -> dict[str, Times]:
    """Raises ValueError."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("another format")
    measured = content.get("measured")
    if not isinstance(measured, dict) or not all(map(_is_pair, measured.values())):
        raise ValueError("damaged")
    return {text: Times(*pair) for text, pair in measured.items()}


def _is_pair(value: Any) -> bool:
    """Return whether these are two times."""
    numbers = isinstance(value, list) and all(type(ms) in (int, float) and ms > 0 for ms in value)
    return numbers and len(value) == 2


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a file that one process at a time can hold; it stays, empty.

    Raises:
        BusyError: another one holds it all the time.
    """
    if sys.platform == "win32":  # at worst two that write at once lose one choice
        yield
        return
    _check_ordinary(file)
    with open(file, "w") as handle:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BusyError("another process holds it") from None
                time.sleep(0.02)
        yield


@functools.cache
def _warn(text: str) -> None:
    """Say something, once in a process."""
    log.warning(text)
