"""Learning-rate schedules: what the rate of an epoch is multiplied by.

Each is a function of the epoch (from 0) alone, so a resumed training has nothing to restore.
"""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(epoch: int) -> float:  # noqa: ARG001 - that is the point
    """Keep the same rate throughout."""
    return 1.0


def step_down(*, constant_epochs: int, factor: float) -> Schedule:
    """Constant for so many epochs, then divided by ``factor`` before each further one.

    Source: Zaremba et al. 2014, section 4.1.
    """
    return lambda epoch: factor ** -max(epoch + 1 - constant_epochs, 0)


def inverse(*, decay: float) -> Schedule:
    """1 / (1 + decay * epoch). Source: Ma and Hovy 2016, section 3.2."""
    return lambda epoch: 1 / (1 + decay * epoch)
