"""``dropout_steps`` after a resume.

The toolkits move the rate only in the very step a schedule names, so a resumed run would start over
with the first rate and keep it. Here the rate of the step at which training goes on is worked
out and set.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """The rates, and the steps after which each holds.

    Args:
        dropout: rates, the first holds from the start.
        attention_dropout: as many; no RNN reads them, but the trainer wants them.
        steps: ``dropout[i]`` holds from step ``steps[i] + 1`` on; as many as rates.
    """

    dropout: tuple[float, ...]
    attention_dropout: tuple[float, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, opt: Namespace) -> Schedule:
        """Return the schedule of options, with single numbers those of an old checkpoint."""
        dropout = _listed(opt.dropout)
        attention = _listed(getattr(opt, "attention_dropout", 0.0))
        if len(attention) != len(dropout):
            attention = attention[:1] * len(dropout)
        steps = tuple(getattr(opt, "dropout_steps", None) or (0,))
        return cls(dropout, attention, steps)

    def rate_at(self, step: int) -> float:
        """Return the rate in step ``step``, counted from 1."""
        return self.dropout[self._part(step)]

    def attention_rate_at(self, step: int) -> float:
        """Return the attention's rate in step ``step``, counted from 1."""
        return self.attention_dropout[self._part(step)]

    def _part(self, step: int) -> int:
        begun = [(start, i) for i, start in enumerate(self.steps) if step > start]
        return max(begun)[1] if begun else 0

    def hand_to(self, opt: Namespace) -> None:
        """Make these the options of a run, which is where the trainer reads its schedule."""
        opt.dropout = list(self.dropout)
        opt.attention_dropout = list(self.attention_dropout)
        opt.dropout_steps = list(self.steps)

    def __str__(self) -> str:
        return ", ".join(
            f"{p:g} after step {s}" for p, s in zip(self.dropout, self.steps, strict=True)
        )


def _listed(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def next_step(checkpoint: Mapping[str, Any] | None, opt: Namespace) -> int:
    """Return the step training goes on with: 1 for a new run, and where ``reset_optim`` is all."""
    state = checkpoint.get("optim") if checkpoint is not None else None
    if not isinstance(state, Mapping) or getattr(opt, "reset_optim", "none") == "all":
        return 1
    return int(state.get("training_step", 1))
