"""Dot-product attention, a step at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def attend(memory: Tensor, lengths: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return the context ``[B, D]`` and the weights ``[B, S]`` of one step.

    Args:
        memory: ``[B, S, D]``.
        lengths: ``[B]``, or None: all of it counts.
        query: ``[B, D]``.
    """
    scores = torch.bmm(memory, query.unsqueeze(2)).squeeze(2)  # [B, S]
    if lengths is not None:
        steps = torch.arange(memory.shape[1], device=memory.device)
        scores = scores.masked_fill(steps >= lengths[:, None], -torch.inf)
    weights = torch.softmax(scores, 1)
    return torch.bmm(weights.unsqueeze(1), memory).squeeze(1), weights


@dataclass(eq=False)
class Memory:
    """A memory ``[B, S, D]`` and its lengths ``[B]``, as they are."""

    memory: Tensor
    lengths: Tensor | None

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        n = len(query)  # the first n memories: those of the sequences that go on
        return attend(self.memory[:n], None if self.lengths is None else self.lengths[:n], query)


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> Memory:
    return Memory(memory, lengths)
