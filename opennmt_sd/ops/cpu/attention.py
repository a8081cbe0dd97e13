"""Dot-product attention, a step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.ops.checks import refuse_batched_gradients
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.deferred import DeferredAttention
from opennmt_sd.ops.engine import StepwiseAttention


class _Kernels:
    engine = "cpu"
    fp = staticmethod(kernels.attend_fp)

    @staticmethod
    def bp(
        memory: Tensor, lengths: Tensor | None, weights: Tensor, d_context: Tensor,
        d_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        refuse_batched_gradients("cpu", d_context, d_weights)
        return kernels.attend_bp(memory, lengths, weights, d_context, d_weights)


class _Lowered:
    """A prepared memory of bfloat16, of which the kernels take float32."""

    def __init__(self, memory: Tensor, lengths: Tensor | None) -> None:
        self._handle = DeferredAttention(memory.float(), lengths, _Kernels())

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        context, weights = self._handle.attend(query.float())
        return context.bfloat16(), weights.bfloat16()


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> StepwiseAttention:
    memory = memory.contiguous()  # else each step would make a copy of its own
    if memory.dtype == torch.bfloat16:
        return _Lowered(memory, lengths)
    return DeferredAttention(memory, lengths, _Kernels())
