"""Time a training as it is and converted, in one process and turn by turn.

In seconds of the processor, so that what else the machine does is no part of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch


def options(text: str) -> argparse.ArgumentParser:
    """Return a parser with what all the programs here take."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--hidden", type=int, help="units, to try it on something smaller")
    parser.add_argument("--limit", type=int, help="sentences or lines of the data")
    return parser


def compare(as_it_is: Callable[[], float], converted: Callable[[], float], rounds: int) -> float:
    """Run one epoch of each in turn, print the seconds and losses, return the ratio of medians.

    Args:
        as_it_is, converted: train for an epoch and return its loss.
    """
    seconds: dict[str, list[float]] = {"as it is": [], "converted": []}
    for turn in range(rounds):
        for name, epoch in (("as it is", as_it_is), ("converted", converted)):
            start = time.process_time()
            loss = epoch()
            seconds[name].append(time.process_time() - start)
            print(f"epoch {turn + 1}, {name:9}: {seconds[name][-1]:7.2f} s, loss {loss:.3f}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["as it is"] / medians["converted"]
    print(f"an epoch is {ratio:.2f}x faster, on {torch.get_num_threads()} threads")
    return ratio
