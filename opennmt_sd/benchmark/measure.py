"""Times that can be compared: one process, turn by turn, the median of several."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

WARM_UP, LEAST = 2, 3


class Clock:
    """The host's. What it times runs while it is called."""

    def settle(self) -> None:
        """Wait until nothing runs any more."""

    def mark(self) -> Any:
        """Return now."""
        return time.perf_counter()

    def ms(self, begin: Any, end: Any) -> float:
        """Return the time between two marks."""
        return float(end - begin) * 1e3

    def calls(self, ms: float) -> int:  # noqa: ARG002 - of the device's
        """Return how many calls make a turn, if one takes so long."""
        return 1


class Turns(Clock):
    """The host's, for what may be short: a turn is then several calls."""

    TURN_MS, MOST = 2.0, 20

    def calls(self, ms: float) -> int:
        return max(1, min(self.MOST, int(self.TURN_MS / max(ms, 1e-3))))


class Events(Turns):
    """A GPU's: events between what it is asked to do, so that waiting for the host counts too.

    A turn is several calls of what is short, as a training loop does not wait after each either.
    """

    TURN_MS, MOST = 10.0, 100

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def settle(self) -> None:
        torch.cuda.synchronize(self.device)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def ms(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return begin.elapsed_time(end)


HOST = Clock()


def alternate(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Clock = HOST,
    budget_ms: float = math.inf,
) -> dict[str, float]:
    """Give the median time of a call of each variant, in ms.

    They take turns, so that a machine which slows down slows all of them; who goes first changes
    from round to round, so that none always finds the caches of the same predecessor.

    Args:
        variants: name to what is timed.
        repeats: rounds that count, after two that do not.
        clock: of the device that does the work.
        budget_ms: rounds that count end after so long; there are three at least, if repeats are.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    calls = dict.fromkeys(names, 1)
    spent = 0.0
    for turn in range(WARM_UP + repeats):
        if turn >= WARM_UP + LEAST and spent >= budget_ms:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            ms = _turn(variants[name], calls[name], clock)
            if turn >= WARM_UP:
                times[name].append(ms)
                spent += ms * calls[name]
            else:
                calls[name] = clock.calls(ms)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _turn(call: Callable[[], Any], calls: int, clock: Clock) -> float:
    """Time so many calls; return the time of one."""
    clock.settle()
    begin = clock.mark()
    for _ in range(calls):
        call()
    return clock.ms(begin, clock.mark()) / calls
