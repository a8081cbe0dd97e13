"""Dot-product attention, a step at a time, and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.ops.deferred import DeferredAttention
from opennmt_sd.ops.naive.attention import attend


class _Kernels:
    engine = "portable"
    fp = staticmethod(attend)

    @staticmethod
    def bp(
        memory: Tensor,
        lengths: Tensor | None,  # noqa: ARG004 - past them, weights are zero
        weights: Tensor,
        d_context: Tensor,
        d_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        d = torch.bmm(memory, d_context.unsqueeze(2)).squeeze(2)  # [B, S]
        if d_weights is not None:
            d = d + d_weights
        d_scores = weights * (d - (weights * d).sum(1, keepdim=True))
        return d_scores, torch.bmm(d_scores.unsqueeze(1), memory).squeeze(1)


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> DeferredAttention:
    return DeferredAttention(memory, lengths, _Kernels())
