"""The running figures of a training: its loss over the epoch and of late, its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opennmt_sd.training.task import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MEASURES = ("loss", "perplexity")


class DivergedError(Exception):
    """The loss is no longer a number. The text says what to do."""


def check_finite(name: str, value: float, updates: int) -> None:
    """Refuse a figure that is infinite or not a number.

    Raises:
        DivergedError: it is.
    """
    if not math.isfinite(value):
        raise DivergedError(
            f"the {name} is {value} at update {updates:,}: the training has diverged. Lower the "
            "learning rate (optim.lr) or the largest norm of a gradient (optim.clip). Checkpoints "
            "of before are untouched"
        )


class Meter:
    """Counts nats and units, of all ranks together when it is read.

    Args:
        fabric: sums over ranks.
        measure: ``"loss"``, nats a unit; or ``"perplexity"``, e to its power.
    """

    def __init__(self, fabric: Fabric, measure: str) -> None:
        self.fabric, self.measure = fabric, measure
        self.epoch = torch.zeros(2, dtype=torch.float64)  # nats, units
        self.late = torch.zeros(2, dtype=torch.float64)  # the same since the last row
        self._new: list[tuple[Tensor, int]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Speed counts from here: an evaluation lies behind, say."""
        self._began, self._units = time.perf_counter(), 0

    def start_epoch(self) -> None:
        self._take()
        self.epoch.zero_()

    def count(self, step: Step) -> None:
        """Take a batch. It is not looked at before figures are asked for: that would wait for a
        GPU."""
        self._new.append((step.nats.detach(), step.units))
        self._units += step.units

    def row(self, updates: int) -> tuple[dict[str, float], float]:
        """Figures since the last row, and units a second; collective.

        Raises:
            DivergedError: the loss is infinite or not a number.
        """
        self.check(updates)
        loss = self._mean(self.late)
        self.late.zero_()
        speed = self._units / max(time.perf_counter() - self._began, 1e-9) * self.fabric.world_size
        self.restart_clock()
        return self._named(loss), speed

    def check(self, updates: int) -> None:
        """See whether the training still goes; collective.

        Raises:
            DivergedError: the loss is infinite or not a number.
        """
        self._take()
        check_finite("loss", self._mean(self.epoch), updates)

    def epoch_figures(self) -> dict[str, float]:
        """Figures of the epoch so far; collective."""
        self._take()
        return self._named(self._mean(self.epoch))

    def _named(self, loss: float) -> dict[str, float]:
        figures = {"loss": loss}
        if self.measure == "perplexity":
            figures["perplexity"] = math.exp(min(loss, 700))
        return figures

    def _take(self) -> None:
        for nats, units in self._new:
            counted = torch.tensor([float(nats), float(units)], dtype=torch.float64)
            self.epoch += counted
            self.late += counted
        self._new = []

    def _mean(self, sums: Tensor) -> float:
        if self.fabric.world_size > 1:
            added = sums.to(self.fabric.device, copy=True)
            torch.distributed.all_reduce(added)
            sums = added
        nats, units = sums.tolist()
        return nats / units if units else 0.0

    def state_dict(self) -> dict[str, Any]:
        self._take()
        return {"epoch": self.epoch.clone(), "late": self.late.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.late, self._new = state["epoch"].clone(), state["late"].clone(), []
