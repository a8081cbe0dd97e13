"""SIGTERM and Ctrl-C end a training between two updates, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A signal has ended the training; its checkpoint is written.

    Attributes:
        code: the exit code that shells expect, 128 + the signal's number.
    """

    def __init__(self, number: int, checkpoint: Path, updates: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} at update {updates:,}; {checkpoint} is written")
        self.code = 128 + number


_noted = 0  # outside of trainings, in a process that makes several: see take_note


def take_note() -> None:
    """Let a signal outside of a training end the next one at its beginning.

    For a process that makes one training after another beside others: its death would end them.
    """
    for number in SIGNALS:
        signal.signal(number, _note)


def noted() -> int:
    """Give the number of the signal that came outside of a training or ended one; 0 is none."""
    return _noted


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _noted  # noqa: PLW0603 - a signal is to the process
    _noted = _noted or number


class EvaluationInterrupted(BaseException):
    """Ends an evaluation. Not an ``Exception``: nothing on the way may swallow it."""


class StopSignal:
    """While it is entered, takes note of SIGTERM and SIGINT instead of dying from them.

    A second SIGINT is the usual KeyboardInterrupt. Outside the main thread, where Python allows no
    handlers, it does nothing.

    Attributes:
        received: the number of the signal that came; 0 is none.
    """

    def __init__(self) -> None:
        self.received = _noted
        self._evaluating = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            if handler is _note and self.received:
                _note(self.received, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
        if self._evaluating:
            self._evaluating = False
            raise EvaluationInterrupted

    @contextmanager
    def interrupts_evaluation(self) -> Iterator[None]:
        """Within it a signal raises :class:`EvaluationInterrupted` at once.

        An evaluation may take longer than what lies between SIGTERM and SIGKILL, and it can be
        made again: it changes nothing.
        """
        if self.received:
            raise EvaluationInterrupted
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False
