"""What the encoder and the decoder share: they follow one plan of what is dropped where."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep
from opennmt_sd.dropout.apply import launches
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan
from opennmt_sd.seq2seq.rank_generator import generator_for


class DropoutMixin:
    """Let a plan take over the dropout of a toolkit's encoder or decoder.

    The plan and the generator are plain attributes: a toolkit's own ``load_state_dict`` knows
    parameters and nothing else.
    """

    plan: DropoutPlan
    generator: torch.Generator | None
    training: bool

    def take_over(self, opt: Namespace) -> None:
        """Follow the plan of these options instead of the toolkit's dropout."""
        self.plan = DropoutPlan.from_opt(opt)
        self.generator = generator_for(opt)
        self.apply_plan()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": None}  # generators cannot be copied on every torch

    def apply_plan(self) -> None:
        """Hand the plan's patterns to the modules that draw by themselves."""

    def update_dropout(self, dropout: float, attention_dropout: float | None = None) -> None:  # noqa: ARG002 - the toolkits' signature
        """Follow a step of a toolkit's ``dropout_steps``, at every place without a rate of its own.

        RNNs have no dropout inside the attention: ``attention_dropout`` is used by no toolkit.
        """
        self.plan.follow(dropout)
        self.apply_plan()

    def draw(self, place: str, like: Tensor, T: int, B: int, D: int) -> Keep | None:
        """Draw what ``place`` keeps over T steps of a batch of B with D units.

        None keeps all: in evaluation, and at a rate of 0.

        Args:
            like: of the device where it is dropped; on a GPU the mask is made there, but for one
                set that all steps share, whose columns may be gathered.
        """
        pattern = self.plan.pattern(place)
        if not (self.training and pattern.active):
            return None
        draw = pattern.draw_mask if launches(like) and not pattern.shared else pattern.draw
        return draw(T, B, D, self.generator)
