"""Times that can be compared: one process, turn by turn, the median of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

WARM_UP = 2


def alternate(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Give the median time of each variant, in ms.

    They take turns, so that a machine which slows down slows all of them; who goes first changes
    from round to round, so that none always finds the caches of the same predecessor.

    Args:
        variants: name to what is timed.
        repeats: rounds that count, after two that do not.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            variants[name]()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}
