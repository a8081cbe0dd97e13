"""Where a translator drops, and at which rate: the places and the plan."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass

from opennmt_sd.dropout import DropoutPattern, check_rate


@dataclass(frozen=True)
class Place:
    """A place where units are dropped.

    Args:
        what: what is dropped there, in words.
        sides: the parts of the model it belongs to, ``"encoder"`` or ``"decoder"`` or both.
        follows: whether its rate is that of ``dropout`` where it has none of its own.
    """

    what: str
    sides: tuple[str, ...]
    follows: bool = True


PLACES: Mapping[str, Place] = {
    "src_embedding": Place("the source embeddings", ("encoder",)),
    "encoder": Place("what passes between the layers of the encoder", ("encoder",)),
    "tgt_embedding": Place("the target embeddings", ("decoder",)),
    "decoder": Place("what passes between the layers of the decoder", ("decoder",)),
    "output": Place(
        "the decoder's output after attention: the generator's input and the next input feed",
        ("decoder",),
    ),
    # No toolkit drops anything here, so a config that does not name it must not either.
    "recurrent": Place("h before weight_hh, in both", ("encoder", "decoder"), follows=False),
}

# Which rows of the decoder's output share a set: those at many steps, or those of one step.
OUTPUTS = ("staggered", "by_step")
# What a model without an option meant, which is from before there was one.
BEFORE = {"sd_count": "bernoulli", "sd_output_sets": "by_step"}


def option(place: str) -> str:
    """Return the name of the option that holds a place's own rate."""
    return f"sd_{place}_dropout"


def settled_count(count: str | None, space: str) -> str:
    """Return the count of a translator's sets; where None is asked for, exact where a batch shares
    sets: sentences that each drop their own units have none of one size."""
    if count is not None:
        return count
    return "exact" if space == "structured" else "bernoulli"


class DropoutPlan:
    """The rate at each place, and the one pattern they share in space, time and count.

    Args:
        dropout: the rate of every place that follows, in [0, 1).
        rates: rates of their own by place, in [0, 1); None means none of its own. These stay,
            whatever a schedule does.
        space: ``"structured"`` (default) or ``"random"``.
        time: ``"random"`` (default) or ``"fixed"``.
        count: ``"exact"`` or ``"bernoulli"``; None (default) is that of the space
            (:func:`settled_count`).
        output: ``"staggered"`` (default) or ``"by_step"``: which rows of the decoder's output share
            a set, where there are sets and each step has new ones
            (:class:`~opennmt_sd.dropout.staggered.StaggeredSets`).

    Raises:
        ValueError: a rate is outside [0, 1), or space, time, count or output is unknown, or an
            exact count goes with a random space.
    """

    def __init__(
        self,
        dropout: float = 0.0,
        rates: Mapping[str, float | None] | None = None,
        *,
        space: str = "structured",
        time: str = "random",
        count: str | None = None,
        output: str = "staggered",
    ) -> None:
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r} is unknown: use one of {', '.join(OUTPUTS)}")
        self._output = output
        own = {place: (rates or {}).get(place) for place in PLACES}
        self._followers = [p for p in PLACES if own[p] is None and PLACES[p].follows]
        count = settled_count(count, space)
        self._patterns = {p: DropoutPattern(own[p] or 0.0, space, time, count) for p in PLACES}
        self.follow(dropout)

    @classmethod
    def from_opt(cls, opt: Namespace) -> DropoutPlan:
        """Return the plan of a model's options.

        ``opt.dropout`` is a schedule (its first rate counts) or, in old OpenNMT-py checkpoints, a
        number. Options that are not there have their defaults, or what a model from before there
        were such meant (:data:`BEFORE`).
        """
        dropout = getattr(opt, "dropout", 0.0)
        return cls(
            dropout[0] if isinstance(dropout, list) else dropout,
            {place: getattr(opt, option(place), None) for place in PLACES},
            space=getattr(opt, "sd_space", "structured"),
            time=getattr(opt, "sd_time", "random"),
            count=getattr(opt, "sd_count", BEFORE["sd_count"]),
            output=getattr(opt, "sd_output_sets", BEFORE["sd_output_sets"]),
        )

    def pattern(self, place: str) -> DropoutPattern:
        """Return what is dropped at a place now: ask at each forward, a schedule may move it."""
        return self._patterns[place]

    @property
    def staggered(self) -> bool:
        """Return whether rows of many steps share a set of the decoder's output."""
        pattern = self.pattern("output")
        return self._output == "staggered" and pattern.structured and not pattern.shared

    def follow(self, dropout: float) -> None:
        """Set the rate of every place that has none of its own; ``recurrent`` never follows."""
        rate = check_rate(dropout, "dropout")
        for place in self._followers:
            self._patterns[place] = self._patterns[place].at(rate)

    def describe(self, sides: tuple[str, ...] = ("encoder", "decoder")) -> str:
        """Return one line: for each place the rate, space and time, whether the count is exact, and
        whether the sets are staggered.

        Args:
            sides: the parts of the model that follow this plan; a place of another is "stock".
        """
        return ", ".join(
            f"{place} {p.p:g} {p.space}/{p.time}{'/exact' if p.exact else ''}"
            f"{'/staggered' if self.staggered and place == 'output' else ''}"
            if set(PLACES[place].sides) & set(sides)
            else f"{place} stock"
            for place, p in self._patterns.items()
        )
