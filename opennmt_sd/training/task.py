"""What a trainer trains: the contract between the loop and the language model or the tagger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from opennmt_sd.training import checkpoint, seeds


@dataclass(frozen=True)
class Step:
    """What one batch gives.

    Args:
        loss: a scalar; its gradient is taken.
        nats: the sum of the unregularised loss over ``units``, detached (for logs: nats / units).
        units: how many units (words, sentences) the batch holds.
        lr_scale: the learning rate of this update is multiplied by it. Default 1.
    """

    loss: Tensor
    nats: Tensor
    units: int
    lr_scale: float = 1.0


class Task(Protocol):
    """A model with its data and scores.

    Attributes:
        model: what is trained.
        unit: what speed counts, in the plural: ``"words"``, ``"sentences"``.
        score: the name among :meth:`evaluate`'s results that tells the best checkpoint.
        mode: ``"min"`` or ``"max"``: which way that score is better.
    """

    unit: str
    score: str
    mode: str

    @property
    def model(self) -> nn.Module: ...

    def batches(self, epoch: int) -> Sequence[Any]:
        """Give all batches of an epoch (from 0) for this rank; the same for one epoch, seed and
        world size, so that a position in the data is (epoch, index)."""
        ...

    def start_epoch(self, epoch: int) -> None:
        """Forget what is carried from batch to batch."""
        ...

    def step(self, model: nn.Module, batch: Any) -> Step:
        """Forward one batch. ``model`` is :attr:`model` as the strategy wraps it."""
        ...

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Score ``"valid"`` or ``"test"``, without a trace in what is carried."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Return what is carried from batch to batch (a hidden state): tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@contextmanager
def without_trace(task: Task, model: nn.Module) -> Iterator[None]:
    """Let what is carried, and the generators, come out as they went in; the model in training."""
    carried, rng = checkpoint.plain(task.state_dict()), seeds.rng_state()
    try:
        with torch.no_grad():
            yield
    finally:
        task.load_state_dict(carried)
        seeds.set_rng_state(rng)
        model.train()
