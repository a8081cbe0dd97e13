"""How the weights are changed: the optimizer, its learning rate over time, clipping, averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from opennmt_sd.training.schedules import Schedule, constant
from opennmt_sd.training.sgd import ClippedSGD

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Recipe:
    """An optimizer and what belongs to it.

    Args:
        optimizer: ``"sgd"`` or ``"adam"``.
        lr: the learning rate before any schedule.
        momentum: of SGD. Default 0.
        betas: of Adam. Default (0.9, 0.999).
        weight_decay: the L2 penalty's factor, on every parameter. Default 0.
        clip: the largest norm of the whole gradient; None (default) does not clip.
        schedule: what the learning rate of an epoch is multiplied by. Default constant.
        non_monotone: turns averaging on (NT-ASGD), with this patience; None (default) is off.

    Raises:
        ValueError: no such optimizer.
    """

    optimizer: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Schedule = constant
    non_monotone: int | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizer {self.optimizer!r} is unknown: use one of {', '.join(OPTIMIZERS)}"
            )

    def optimizer_for(self, model: nn.Module, device: torch.device) -> Optimizer:
        """Make the optimizer over all parameters of a model that ask for gradients.

        Args:
            device: that they will be on. On a CPU, SGD is one that clips too.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "adam":
            return torch.optim.Adam(
                parameters, self.lr, betas=self.betas, weight_decay=self.weight_decay
            )
        given: dict[str, Any] = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        if device.type == "cpu":
            return ClippedSGD(parameters, self.lr, **given, max_norm=self.clip)
        return torch.optim.SGD(parameters, self.lr, **given)
