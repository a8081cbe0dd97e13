"""The averaged weights of NT-ASGD: when averaging begins, the average, its use in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Averaging:
    """Averages the weights over all updates from a trigger on.

    The trigger is non-monotone: it fires at the first evaluation that is worse than the best of
    those more than ``non_monotone`` evaluations ago.

    Args:
        model: whose parameters are averaged; tied ones once.
        non_monotone: the number of evaluations n above.
        mode: ``"min"`` or ``"max"``: which way a score is better.

    Source: Merity et al. 2017 (AWD-LSTM), algorithm 1.
    """

    def __init__(self, model: nn.Module, *, non_monotone: int, mode: str) -> None:
        self.parameters = dict(model.named_parameters())
        first = {id(parameter): name for name, parameter in self.parameters.items()}
        self.names = {  # every name of a parameter: tied ones have several
            name: first[id(parameter)]
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        self.non_monotone = non_monotone
        self.sign = 1 if mode == "min" else -1
        self.scores: list[float] = []
        self.updates = 0
        self.average: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        """Whether the trigger has fired."""
        return bool(self.average)

    def scored(self, score: float) -> bool:
        """Take note of an evaluation. Whether averaging begins with it."""
        loss = self.sign * score
        earlier = self.scores[: -self.non_monotone] if self.non_monotone else self.scores
        fires = not self.active and bool(earlier) and loss > min(earlier)
        self.scores.append(loss)
        if fires:
            self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        return fires

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an update into the average."""
        if self.active:
            self.updates += 1
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter, 1 / self.updates)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model its averaged weights, once there are any; its own come back after."""
        if not self.active:
            yield
            return
        with torch.no_grad():
            own = {name: parameter.clone() for name, parameter in self.parameters.items()}
            self._write(self.average)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        average = {name: self.average[first] for name, first in self.names.items() if self.active}
        return {"scores": list(self.scores), "updates": self.updates, "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scores, self.updates = list(state["scores"]), state["updates"]
        self.average = {
            name: state["average"][name].to(parameter.device, copy=True)
            for name, parameter in self.parameters.items()
            if state["average"]
        }
