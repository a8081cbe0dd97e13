"""A task as small as the contract allows: a recurrent net that follows noise, with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd.training.task import Step

T, B, D, BATCHES = 4, 3, 8, 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(D, D)
        self.out = nn.Linear(D, D)

    def forward(self, x: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        y, h = self.cell(F.dropout(x, 0.5, self.training), h)
        return (self.out(y) - x).pow(2).mean(), h


class FakeTask:
    """Carries a hidden state; its score is the loss on data of its own."""

    unit, score, mode = "words", "loss", "min"

    def __init__(self, *, rank: int = 0, width: int = D) -> None:
        torch.manual_seed(0)
        self.model, self.rank, self.hidden = Net(), rank, None
        self.evaluations = 0
        self.seen: list[tuple[int, int]] = []  # (epoch, index)

    def batches(self, epoch: int) -> list[tuple[int, int, Tensor]]:
        generator = torch.Generator().manual_seed(100 * epoch + self.rank)
        return [
            (epoch, index, torch.randn(T, B, D, generator=generator)) for index in range(BATCHES)
        ]

    def start_epoch(self, epoch: int) -> None:
        self.hidden = None

    def step(self, model: nn.Module, batch: tuple[int, int, Tensor]) -> Step:
        epoch, index, x = batch
        self.seen.append((epoch, index))
        loss, hidden = model(x, self.hidden)
        self.hidden = hidden.detach()
        return Step(loss, loss.detach() * T * B, T * B, lr_scale=1 - 0.1 * index)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        self.evaluations += 1
        self.hidden = None  # the trainer restores it
        torch.rand(7)  # and the generators
        model.eval()
        generator = torch.Generator().manual_seed(0 if split == "valid" else 1)
        loss, _ = model(torch.randn(T, B, D, generator=generator), None)
        return {"loss": float(loss), "loss/part": 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.hidden = state["hidden"]
