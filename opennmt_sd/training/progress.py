"""Shows how a training goes: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from typing import Any

from opennmt_sd.extras import extra

LINE_SECONDS = 15

log = logging.getLogger(__name__)


class Progress:
    """A bar for each epoch.

    Args:
        unit: what speed counts, in the plural.
        shown: whether this process shows anything.
    """

    def __init__(self, *, unit: str, shown: bool) -> None:
        self.unit, self.shown = unit, shown
        # Processes side by side (of a sweep) would write over each other's bars.
        self.live = shown and sys.stderr.isatty() and multiprocessing.parent_process() is None
        self.bar: Any = None
        self.last_line = time.monotonic()

    def start_epoch(self, name: str, *, done: int, total: int) -> None:
        """Begin an epoch of ``total`` batches, ``done`` of which lie behind."""
        self.name, self.done, self.total = name, done, total
        if self.live:
            with extra("train"):
                from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

            self.close()
            self.bar = tqdm(
                total=total, initial=done, desc=name, leave=False, dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
                "[{elapsed}<{remaining}{postfix}]",
            )  # fmt: skip

    def advance(self) -> None:
        """Count one batch."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()

    def show(self, *, speed: float, text: str) -> None:
        """Units a second, and the figures to see."""
        text = f"{speed:,.0f} {self.unit}/s, {text}"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
        elif self.shown and time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            log.info(f"{self.name}: {100 * self.done // self.total:3} %  {text}")

    def clear(self) -> None:
        """Make room for other text; the bar comes back below it."""
        if self.bar is not None:
            self.bar.clear()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
