"""Runs a stock OpenNMT-py command: printed before it runs, logged in full, shown in short."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Callable
from pathlib import Path

TAIL = 15  # lines of its output that a failed command shows
MAX_THREADS = 4  # more make the training of a small model slower, not faster


class CommandError(Exception):
    """A stock command is missing or has failed.

    Attributes:
        code: what to exit with: the command's own exit code, 128 + the number of the signal that
            ended it, or 127 where it is missing.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def find(name: str) -> Path:
    """Find the command `name` of the Python environment that runs this, not the first on the PATH.

    Raises:
        CommandError: it is not there.
    """
    schemes = sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")
    folders = [sysconfig.get_path("scripts", scheme) for scheme in schemes]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise CommandError(
            f"{name} is not in {folders[0]}: OpenNMT-py's commands must be installed in the same "
            f"environment as opennmt_sd ({sys.executable})",
            127,
        )
    return Path(found)


def run(name: str, *arguments: str | Path, log: Path, show: Callable[[str], None]) -> None:
    """Run the command `name` to its end.

    Args:
        name: e.g. ``onmt_train``.
        arguments: what follows it; paths below the current folder are printed relative to it.
        log: its whole output, stdout and stderr, is appended to this file.
        show: called with each line of output, as it comes.

    Raises:
        CommandError: it is not there, or has failed; the text holds its last lines and `log`.
    """
    words = [find(name), *arguments]
    extra = _thread_limit()
    shown = shlex.join(_short(word) if isinstance(word, Path) else word for word in words)
    command = " ".join([*(f"{key}={value}" for key, value in extra.items()), shown])
    print(f"$ {command}", flush=True)
    environment = {**os.environ, **extra, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    tail: deque[str] = deque(maxlen=TAIL)
    with (
        open(log, "a", encoding="utf-8") as file,
        subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None  # PIPE
        try:
            print(f"$ {command}", file=file, flush=True)
            for line in process.stdout:
                file.write(line)
                file.flush()
                tail.append(line.rstrip())
                show(line.rstrip())
        except BaseException:  # Ctrl-C among them: leave no training behind
            process.terminate()
            raise
    if process.returncode != 0:
        raise CommandError(_failure(name, process.returncode, list(tail), log), _code(process))


def _short(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _thread_limit() -> dict[str, str]:
    if "OMP_NUM_THREADS" in os.environ or (os.cpu_count() or 1) <= MAX_THREADS:
        return {}
    return {"OMP_NUM_THREADS": str(MAX_THREADS)}


def _code(process: subprocess.Popen[str]) -> int:
    return process.returncode if process.returncode > 0 else 128 - process.returncode


def _failure(name: str, returncode: int, tail: list[str], log: Path) -> str:
    ended = f"failed with exit code {returncode}"
    if returncode < 0:
        ended = f"was ended by signal {-returncode}"
        ended += " (out of memory?)" if returncode == -9 else ""
    last = "".join(f"\n    {line}" for line in tail) or " nothing"
    return f"{name} {ended}. Its last lines:{last}\nAll of its output: {_short(log)}"


class Progress:
    """Shows how a training goes: a bar that moves in a terminal, one line a report elsewhere.

    Args:
        start: the step that the training starts after; for the estimate of the time left.
    """

    STEP = re.compile(r"Step +(\d+)/ *(\d+); acc: *([\d.]+); ppl: *([\d.]+);.* (\d+) sec;")
    VALIDATION = re.compile(r"Validation (?:perplexity|accuracy): [\d.]+")
    OURS = re.compile(r"(?:\] |Warning: )(opennmt_sd\b.*)")  # the plugin's own lines and warnings

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.live = sys.stdout.isatty()
        self.barred = False  # the cursor stands behind a bar

    def __call__(self, line: str) -> None:
        """Show `line` of ``onmt_train``'s output, or do not."""
        if report := self.STEP.search(line):
            step, steps, seconds = int(report[1]), int(report[2]), int(report[5])
            left = seconds / max(step - self.start, 1) * (steps - step)
            text = f"{step:>4}/{steps}  perplexity {report[4]:>6}  accuracy {report[3]} %"
            text += f"  {clock(left)} left" if step < steps else f"  {clock(seconds)}"
            if self.live:
                done = 20 * step // max(steps, 1)
                print(f"\r\x1b[K  [{'#' * done}{'.' * (20 - done)}] {text}", end="", flush=True)
                self.barred = True
            else:
                print(f"  {text}", flush=True)
        elif other := self.OURS.search(line) or self.VALIDATION.search(line):
            self.close()
            print(f"  {other[other.lastindex or 0]}", flush=True)

    def close(self) -> None:
        """End the line of the bar, so that other text may follow."""
        if self.barred:
            print(flush=True)
        self.barred = False


def clock(seconds: float) -> str:
    """Seconds as ``m:ss``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
