"""Dot-product attention, a step at a time."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.deferred import DeferredAttention


class _Kernels:
    engine = "cpu"
    fp = staticmethod(kernels.attend_fp)
    bp = staticmethod(kernels.attend_bp)


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> DeferredAttention:
    # Else each step would make a copy of its own.
    return DeferredAttention(memory.contiguous(), lengths, _Kernels())
