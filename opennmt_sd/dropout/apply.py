"""Dropping and scaling: on a CPU without a branch for each value; on a GPU in one launch,
and without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.compat import in_transform, is_batch, is_compiling, is_unwatched

# CUDA takes a copy of up to so many bytes at once, without pinned memory, and returns.
STAGED = 2**16
# torch's `where` takes a branch for each value, of which every other one is foretold wrongly. From
# so many values on that costs more than a node of ours in the graph.
BRANCHES = 2**15
# Made once: it takes as long as to drop from a small x.
ZEROS = {
    dtype: torch.zeros((), dtype=dtype, device="cpu")
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
}
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device, without waiting for the device where it need not be."""
    device = torch.device(device)
    if x.device == device:
        return x
    pinned = device.type == "cuda" and type(x) is Tensor and x.numel() * x.element_size() > STAGED
    return (x.pin_memory() if pinned else x).to(device, non_blocking=True)


def launches(x: Tensor) -> bool:
    """Return whether work on x is launched, op by op: on a device that is not the CPU."""
    return x.device.type != "cpu" and not (in_transform() or is_compiling())


def compact(mask: Tensor) -> Tensor:
    """Return a mask ``[S, B, D]`` as ``[S, 1, D]`` where it is a view of that."""
    shared = mask.dim() == 3 and mask.shape[1] > 1 and mask.stride(1) == 0
    return mask[:, :1] if shared else mask


def as_bits(mask: Tensor, x: Tensor) -> Tensor:
    """Return a mask as :func:`dropped` wants it for x: as words of all ones or all zeros where it
    is large."""
    wide = x.is_cpu and x.numel() >= BRANCHES and x.element_size() in WORDS
    if not wide or not x.is_floating_point() or in_transform() or is_compiling():
        return mask
    return mask.to(WORDS[x.element_size()]).neg_()


def dropped(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Return x scaled, and zero where it is not kept, whatever it is there: NaN too.

    Args:
        kept: boolean, or :func:`as_bits`; it broadcasts.
    """
    if kept.dtype == torch.bool:
        zero = ZEROS.get(x.dtype) if x.is_cpu and is_unwatched() else None
        return torch.where(kept, x * scale, x.new_zeros(()) if zero is None else zero)
    return _Dropped.apply(x, kept, scale) if x.requires_grad else _cut(x, kept, scale)


class _Dropped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: float) -> Tensor:
        ctx.bits, ctx.scale = bits, scale
        return _cut(x, bits, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        kept = ctx.bits != 0 if is_batch(grad) else ctx.bits
        return dropped(grad, kept, ctx.scale), None, None


def _cut(x: Tensor, bits: Tensor, scale: float) -> Tensor:
    words = x.resolve_neg().view(bits.dtype)  # a view that is negated in name only has none
    return words.bitwise_and(bits).view(x.dtype).mul_(scale)
