"""An update as the trainer makes it; of a plain model as a user of torch would."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.sgd import ClippedSGD, rows_alone


class Update:
    """Changes a model by its gradients: clips, steps, forgets them.

    Args:
        recipe: SGD that clips.
        plain: the model is what a user would run otherwise.
        device: that the model is on.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, *, plain: bool, device: torch.device
    ) -> None:
        assert recipe.clip is not None
        self.model, self.clip = model, recipe.clip
        stock = torch.optim.SGD(model.parameters(), recipe.lr, momentum=recipe.momentum)
        self.optimizer = stock if plain else recipe.optimizer_for(model, device)
        self.clips_itself = isinstance(self.optimizer, ClippedSGD)

    def gradients(self) -> AbstractContextManager[None]:
        """Let gradients be computed as this takes them, within the context."""
        return rows_alone(self.model) if self.clips_itself else nullcontext()

    def make(self) -> None:
        if not self.clips_itself:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
