"""Dot-product attention, one step."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.ops.cpu.binding import records
from opennmt_sd.ops.cpu.kernels.call import Addresses, call, team


def attend_fp(memory: Tensor, lengths: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return the context ``[B, D]`` and the weights ``[B, S]`` of a query ``[B, D]``."""
    (B, S, D), at = memory.shape, Addresses(memory.dtype)
    context, weights = query.new_empty(B, D), query.new_empty(B, S)
    call(
        "attend_fp", memory.dtype, memory=memory_operands(at, memory, lengths),
        query=at(query, B, D), weights=at(weights), context=at(context), threads=team(memory),
    )  # fmt: skip
    return context, weights


def attend_bp(
    memory: Tensor,
    lengths: Tensor | None,
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return d_scores ``[B, S]`` and d_query ``[B, D]``."""
    (B, S, D), at = memory.shape, Addresses(memory.dtype)
    d_scores, d_query = weights.new_empty(B, S), weights.new_empty(B, D)
    call(
        "attend_bp", memory.dtype, memory=memory_operands(at, memory, lengths),
        weights=at(weights, B, S), d_context=at(d_context, B, D), d_weights=at(d_weights, B, S),
        d_scores=at(d_scores), d_query=at(d_query), threads=team(memory),
    )  # fmt: skip
    return d_scores, d_query


def memory_operands(
    at: Addresses, memory: Tensor, lengths: Tensor | None
) -> records.MemoryOperands:
    B, S, D = memory.shape
    return records.MemoryOperands(
        memory=at(memory), lengths=at(lengths, B, dtype=torch.int64), B=B, S=S, D=D
    )
