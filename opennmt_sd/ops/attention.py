"""Dot-product attention over one memory, a step at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.compat import in_transform
from opennmt_sd.dropout.apply import sent
from opennmt_sd.ops.autocast import lowered
from opennmt_sd.ops.checks import check_alike, check_floating
from opennmt_sd.ops.engine import StepwiseAttention
from opennmt_sd.ops.engines import engine, refuse_transforms


@dataclass(frozen=True, eq=False)
class PreparedMemory:
    """A memory prepared for stepwise attention: for one forward and backward pass."""

    handle: StepwiseAttention
    like: Tensor  # [B, 0, D]: its size, dtype and device


@uncompiled
def prepare_memory(memory: Tensor, lengths: Tensor | None = None) -> PreparedMemory:
    """Prepare ``memory [B, S, D]`` for :func:`attend_step`.

    The handle lives for one forward and backward pass: steps make no gradient of the memory; one
    is made once all steps have run backward.

    Args:
        memory: ``[B, S, D]``, with S at least 1.
        lengths: int64 ``[B]``, each at least 1: what lies past them is padding and gets no
            attention; one beyond S counts as S. Default none.

    Raises:
        TypeError, ValueError: shapes that do not fit; the text says which.
    """
    if memory.dim() != 3 or not memory.shape[1]:
        raise ValueError(f"memory must be [B, S, D] with S >= 1, got {list(memory.shape)}")
    check_floating(memory, "memory")
    B, S, _ = memory.shape
    if lengths is not None:
        if lengths.shape != (B,) or lengths.dtype != torch.int64:
            raise ValueError(
                f"lengths must be int64 [{B}], one for each memory; got {lengths.dtype} "
                f"{list(lengths.shape)}"
            )
        known = lengths.device.type == "cpu" and not in_transform()  # a device would be waited for
        if B and known and int(lengths.min()) < 1:
            raise ValueError(f"lengths must be at least 1, got {int(lengths.min())}")
        lengths = sent(lengths.clamp(max=S), memory.device)
    _, (memory,) = lowered(memory)
    handle = engine(memory).prepare_memory(memory, lengths)
    return PreparedMemory(handle, memory.detach()[:, :0])


@uncompiled
def attend_step(handle: PreparedMemory, query: Tensor) -> tuple[Tensor, Tensor]:
    """Take one step of dot-product attention: ``softmax(memory @ query)`` and what it picks.

    Args:
        handle: from :func:`prepare_memory`.
        query: ``[n, D]``: of the first n memories.

    Returns:
        The context ``[n, D]``, the weighted sum of the memory; and the weights ``[n, S]``.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit. RuntimeError: in ``torch.func`` or
            forward mode, a handle from outside of it.
    """
    B, _, D = handle.like.shape
    if query.dim() != 2 or query.shape[0] > B or query.shape[1] != D:
        raise ValueError(
            f"query must be [n, {D}] with n <= {B} for a memory [{B}, S, {D}], got "
            f"{list(query.shape)}"
        )
    refuse_transforms(handle.handle, "prepare_memory")
    context, (query,) = lowered(query)
    check_alike(query=query, memory=handle.like)
    with context:
        return handle.handle.attend(query)
