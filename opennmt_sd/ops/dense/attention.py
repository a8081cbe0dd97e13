"""Dot-product attention, a step at a time, in torch's own launches."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.compat import softmax_backward
from opennmt_sd.ops.deferred import DeferredAttention


class _Kernels:
    engine = "dense"

    @staticmethod
    def fp(memory: Tensor, padding: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.bmm(memory, query.unsqueeze(2)).squeeze(2)  # [n, S]
        if padding is not None:
            scores = scores.masked_fill(padding, -torch.inf)
        weights = torch.softmax(scores, 1)
        return torch.bmm(weights.unsqueeze(1), memory).squeeze(1), weights

    @staticmethod
    def bp(
        memory: Tensor,
        padding: Tensor | None,  # noqa: ARG004 - there, weights are zero
        weights: Tensor,
        d_context: Tensor,
        d_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        d = torch.bmm(memory, d_context.unsqueeze(2)).squeeze(2)  # [n, S]
        if d_weights is not None:
            d = d + d_weights
        d_scores = softmax_backward(d, weights)
        return d_scores, torch.bmm(d_scores.unsqueeze(1), memory).squeeze(1)


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> DeferredAttention:
    padding = None
    if lengths is not None:  # once for all steps
        padding = torch.arange(memory.shape[1], device=memory.device) >= lengths[:, None]
    return DeferredAttention(memory, padding, _Kernels())
