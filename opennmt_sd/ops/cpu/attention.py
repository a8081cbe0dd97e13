"""Dot-product attention, a step at a time."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd.ops.checks import refuse_batched_gradients
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.deferred import DeferredAttention


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


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> DeferredAttention:
    # Else each step would make a copy of its own.
    return DeferredAttention(memory.contiguous(), lengths, _Kernels())
