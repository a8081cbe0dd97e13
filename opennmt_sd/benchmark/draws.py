"""Ways to draw what is kept, those that the package has and those that it might have, run dense.

What a draw does to a gradient does not depend on how the products are computed. So each is a mask
for every row, and a model whose space is ``"random"`` takes any of them for its own:

    with emulated(Draw("4 groups", groups=4)):
        train(model)

Its products shrink nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from opennmt_sd.dropout import DropoutPattern, Keep, KeepMask, kept_units
from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan

GOLDEN = 0.6180339887498949  # multiples of it fill the circle evenly, however many there are


@dataclass(frozen=True)
class Draw:
    """A rule: how many rows share a set, how many units a set keeps, how sets depend on each other.

    Args:
        name: of the rule.
        groups: G, how many sets a step has: the batch's rows are cut into so many neighbouring
            ranges, whose lengths differ by one at most. 1 (default): the batch shares a set. None:
            every row has its own.
        exact: whether each set keeps k units, as ``count="exact"``. Default: each unit by itself.
        spread: what a unit's drops are spread over evenly, instead of independently: ``"steps"``
            or ``"groups"``. A unit is still kept with the same probability everywhere.
        staggered: whether a decoder's output has the sets that ``sd_output_sets: staggered`` gives
            it, each for rows of many steps, drawn by this rule.
        output: the rule at a decoder's output. Default: this one.

    Raises:
        ValueError: groups below 1, or an unknown spread.
    """

    name: str
    groups: int | None = 1
    exact: bool = False
    spread: str | None = None
    staggered: bool = False
    output: Draw | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups < 1:
            raise ValueError(
                f"groups must be 1 or more, got {self.groups}; None gives every row its own set"
            )
        if self.spread not in (None, "steps", "groups"):
            raise ValueError(f"spread {self.spread!r} is unknown: use 'steps', 'groups' or None")

    def keep(
        self, p: float, S: int, B: int, D: int, generator: torch.Generator | None = None
    ) -> KeepMask:
        """Draw what is kept of D units in S steps of B rows, at rate p."""
        G = min(self.groups or B, B)
        chance = self._chances(S, G, D, generator)
        if self.exact:
            k = kept_units(p, D)
            kept = torch.zeros(S, G, D, dtype=torch.bool)
            kept.scatter_(2, chance.topk(k, 2).indices, True)
            scale = D / k
        else:
            kept, scale = chance >= p, 1 / (1 - p)
        rows = torch.tensor([len(part) for part in torch.arange(B).tensor_split(G)])
        return KeepMask(kept.repeat_interleave(rows, 1), scale)

    def _chances(self, S: int, G: int, D: int, generator: torch.Generator | None) -> Tensor:
        """Return ``[S, G, D]`` of numbers from U(0, 1): a unit goes where its number is below p.

        Spread numbers of a unit are a random one that moves round the circle of length 1.
        """
        shape = (1 if self.spread == "steps" else S, 1 if self.spread == "groups" else G, D)
        found = torch.rand(shape, generator=generator)
        if self.spread == "steps":
            found = (found + torch.arange(S)[:, None, None] * GOLDEN) % 1
        elif self.spread == "groups":
            found = (found + torch.arange(G)[:, None] / G) % 1
        return found


ORDINARY = Draw("Case I", groups=None)
STRUCTURED = Draw("Case III")
DRAWS = (
    ORDINARY,
    STRUCTURED,
    Draw("exact", exact=True),
    Draw("2 groups", groups=2),
    Draw("4 groups", groups=4),
    Draw("exact, 2 groups", groups=2, exact=True),
    Draw("exact, 4 groups", groups=4, exact=True),
    Draw("spread over steps", spread="steps"),
    Draw("exact, spread over steps", exact=True, spread="steps"),
    Draw("4 groups, spread over them", groups=4, spread="groups"),
    Draw("exact, 4 groups, spread over them", groups=4, exact=True, spread="groups"),
    Draw("Case I, the output as in Case III", groups=None, output=STRUCTURED),
    Draw("Case III, the output as in Case I", output=ORDINARY),
    Draw("Case III, the output staggered", staggered=True),
    Draw("exact, the output staggered", exact=True, staggered=True),
)


def named(name: str) -> Draw:
    """Return a draw by its name.

    Raises:
        ValueError: there is none.
    """
    for draw in DRAWS:
        if draw.name == name:
            return draw
    raise ValueError(f"no draw is named {name!r}: use one of {'; '.join(d.name for d in DRAWS)}")


@contextmanager
def emulated(draw: Draw) -> Iterator[None]:
    """Let every pattern draw by a rule.

    Raises:
        ValueError: from a pattern whose space is not ``"random"``: its layers expect sets.
    """

    def drawn(
        pattern: DropoutPattern, T: int, B: int, D: int, generator: torch.Generator | None = None
    ) -> KeepMask:
        rule = draw.output if place == ["output"] and draw.output else draw
        if pattern.structured:
            raise ValueError(
                f"{draw.name!r} is emulated by masks, which a structured space does not take: "
                "give the model space 'random' (sd_space random)"
            )
        return rule.keep(pattern.p, pattern._steps(T), B, D, generator)

    place: list[str] = []  # of a translator where it draws now
    draw_at = DropoutMixin.draw

    def noted(self: DropoutMixin, name: str, *args: Any, **kwargs: Any) -> Keep | None:
        place.append(name)
        try:
            return draw_at(self, name, *args, **kwargs)
        finally:
            place.pop()

    with (
        mock.patch.multiple(DropoutPattern, draw=drawn, draw_mask=drawn),
        mock.patch.object(DropoutMixin, "draw", noted),
        mock.patch.object(DropoutPlan, "staggered", draw.staggered),
    ):
        yield
