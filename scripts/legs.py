"""A run of a plan: one process, or legs of one, where its command can go on in its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plans import Plan
from preparing import SourceError

from opennmt_sd import atomic

RUNNING: set[subprocess.Popen[str]] = set()


class Run:
    """A run: what it prints, and the time of that.

    Where the plan resumes, its folder stays until :meth:`forget`, and beside it a record of all
    legs: ``["begin", commit, way]``, ``["line", seconds, text]`` and ``["end", seconds, processor
    seconds]``, a line of JSON each. Seconds are those of all legs, without the breaks; of a leg
    that was killed with this process, those until the last line it printed.
    """

    def __init__(self, plan: Plan, setting: str, seed: int) -> None:
        self.log = Path("runs") / plan.name / f"{setting}.{seed}.log"
        # Its name stands in a command: without spaces and commas, and no other setting's.
        place = re.sub("[^A-Za-z0-9._-]", "_", plan.name)
        name = re.sub("[^A-Za-z0-9.]", lambda sign: f"_{ord(sign[0]):x}_", setting)
        self._folder = Path("runs") / f"{place}.legs" / f"{name}.{seed}"
        self._record = self._folder.with_name(f"{self._folder.name}.jsonl")
        self.plan, self.setting, self.seed = plan, setting, seed
        self._events: list[list[Any]] = []

    @property
    def way(self) -> dict[str, str]:
        """Return how it is made, which all legs must have in common."""
        return self.plan.way(self.setting, self.seed)

    def check(self) -> None:
        """Look at what earlier legs have left. Raises: SourceError: another plan began them."""
        self._earlier()

    def go(self, commit: str, lock: int) -> int:
        """Begin, or go on; return the exit code.

        Args:
            lock: a file that the processes of the run hold open too, so that nobody makes it a
                second time while one of them lives.

        Raises:
            SourceError: see :meth:`check`.
        """
        self._events = self._earlier()
        if not self._events:
            self.forget()
        else:
            text = "".join(json.dumps(event) + "\n" for event in self._events)
            atomic.write_text(self._record, text)  # without what was cut off
        goes_on, before = bool(self._events), self.seconds
        with self._in_folder() as folder:
            self._note("begin", commit, self.way)
            start = time.monotonic()
            process = self._start(folder, lock)
            assert process.stdout is not None
            mode = "a" if goes_on else "w"
            with self.log.open(mode, encoding="utf-8", buffering=1) as log, process.stdout:
                for line in process.stdout:
                    text = line.removesuffix("\n") + "\n"  # a leg may end within a line
                    log.write(text)
                    self._note("line", before + time.monotonic() - start, text)
            _, status, used = os.wait4(process.pid, 0)  # with what this leg alone has used
            process.returncode = code = os.waitstatus_to_exitcode(status)
            RUNNING.discard(process)
            # What a shell has started, and not waited for when it was killed, is not in it.
            processors = used.ru_utime + used.ru_stime if code >= 0 else None
            self._note("end", before + time.monotonic() - start, processors)
        if not (self._folder.is_dir() and os.listdir(self._folder)):
            self.forget()  # there is nothing to go on with
        return code

    def forget(self) -> None:
        """Remove what would let it go on; of a plan that does not resume that is another's."""
        if self.plan.resumes:
            self._record.unlink(missing_ok=True)  # first: without it a folder counts for nothing
            if self._folder.exists():
                shutil.rmtree(self._folder)

    @property
    def text(self) -> str:
        """Return what it has printed."""
        return "".join(text for _, text in self._all("line"))

    @property
    def stamps(self) -> list[float]:
        """Return the seconds of each line."""
        return [seconds for seconds, _ in self._all("line")]

    @property
    def seconds(self) -> float:
        """Return how long it has run."""
        return max((event[1] for event in self._events if event[0] != "begin"), default=0.0)

    @property
    def processor_seconds(self) -> float | None:
        """Return the seconds of all processors; None where a leg ended before they were known."""
        known = [processors for _, processors in self._all("end") if processors is not None]
        return sum(known) if len(known) == len(self._all("begin")) else None

    @property
    def commits(self) -> str:
        """Return that of its legs, or those."""
        return " ".join(dict.fromkeys(commit for commit, _ in self._all("begin")))

    def _all(self, kind: str) -> list[list[Any]]:
        return [event[1:] for event in self._events if event[0] == kind]

    def _note(self, *event: Any) -> None:
        self._events.append([*event])
        if self.plan.resumes:
            with self._record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a machine that dies takes no line along

    def _earlier(self) -> list[list[Any]]:
        """Return what earlier legs have left. Raises: SourceError: another plan began them."""
        if not (self.plan.resumes and self._folder.is_dir() and self._record.exists()):
            return []
        lines = self._record.read_text(encoding="utf-8").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        for was in (about[1] for event, *about in events if event == "begin"):
            wrong = [f"{key} {was.get(key)}" for key, now in self.way.items()
                     if was.get(key) != now]  # fmt: skip
            if wrong:
                raise SourceError(
                    f"{self._folder} was begun by another plan ({', '.join(wrong)}): remove the "
                    "folder to begin anew"
                )
        return events

    @contextmanager
    def _in_folder(self) -> Iterator[str]:
        if self.plan.resumes:
            self._folder.mkdir(parents=True, exist_ok=True)
            yield str(self._folder)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield folder

    def _start(self, folder: str, lock: int) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        threads = {name: str(self.plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", self.plan.line(self.setting, self.seed, folder)],
            text=True, errors="replace", start_new_session=True,  # to be stopped as a whole
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=[lock],
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **threads},
        )  # fmt: skip
        RUNNING.add(process)
        return process
