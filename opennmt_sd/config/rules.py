"""What a key of a configuration may hold. Errors and ``--help`` show a rule's words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A condition on a value, never on null, which a key's type allows or not.

    Args:
        text: what an error says behind ``key=value: ``.
        holds: whether a value fulfils it.
        brief: what ``--help`` says of it; nothing where the key's meaning says it already.
    """

    text: str
    holds: Callable[[Any], bool]
    brief: str = ""

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value; None where nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        return None if self.holds(value) else self.text


def one_of(*names: str) -> Rule:
    """Return the rule that a value is one of these names."""
    return Rule(f"use one of {', '.join(names)}", names.__contains__, ", ".join(names))


def at_least(least: int, why: str = "") -> Rule:
    """Return the rule that a number is not below another."""
    return Rule(f"must be {least} or more{why}", lambda value: value >= least, f"{least} or more")


def above_zero(what: str) -> Rule:
    """Return the rule of a finite number above 0, which says what the number is."""
    return Rule(
        f"must be above 0: it is {what}", lambda value: 0 < value < math.inf, f"{what}; above 0"
    )


def within(low: int, high: int, why: str = "", bounds: str = "") -> Rule:
    """Return the rule that a number lies in [low, high), which ``bounds`` may write shorter."""
    bounds = bounds or f"[{low}, {high})"
    return Rule(f"must lie in {bounds}{why}", lambda value: low <= value < high, f"in {bounds}")


CELL = one_of("lstm", "gru")
COUNT = at_least(1)
RATE = within(0, 1, ": it is the share dropped; 0 drops nothing")
SEED = within(0, 2**32, bounds="[0, 2**32)")
