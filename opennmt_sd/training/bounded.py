"""A tracker that may keep a training waiting for a while, and no longer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from opennmt_sd.training.loggers import Logger

LIMIT = 30.0  # seconds that a call may take
LAST_LIMIT = 120.0  # of the last one, which may have much to send


class UnansweredError(Exception):
    """A tracker has given no answer within the limit."""


class Bounded:
    """Let a logger run in a thread of its own, all of its calls in the same one.

    What a call raises is raised here; a call that takes too long goes on, but nobody waits for it.

    Raises:
        UnansweredError: by each method, at its limit.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger, self.name = logger, type(logger).__name__
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # Not one of concurrent.futures: the end of the process would wait for these.
        threading.Thread(target=self._work, name=self.name, daemon=True).start()

    def start(self, update: int, config: Mapping[str, Any]) -> None:
        self._do(lambda: self.logger.start(update, config), LIMIT)

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        self._do(lambda: self.logger.log(update, figures), LIMIT)

    def close(self, failed: bool) -> None:
        self._do(lambda: self.logger.close(failed), LAST_LIMIT)

    def _do(self, call: Callable[[], None], limit: float) -> None:
        done = threading.Event()
        errors: list[Exception] = []

        def answered() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - it is raised below
                errors.append(error)
            done.set()

        self._calls.put(answered)
        if not done.wait(limit):
            raise UnansweredError(f"no answer within {limit:.0f} s")
        if errors:
            raise errors[0]

    def _work(self) -> None:
        while True:
            self._calls.get()()
