"""Dropping and scaling on a GPU: in one launch either way, and without waiting for the device.

Axis names: T time, B batch, D units; S is T, or 1 where one set serves every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opennmt_sd.compat import in_transform, is_compiling

if TYPE_CHECKING:
    from opennmt_sd.dropout.keep import Keep

# CUDA takes a copy of up to so many bytes at once, without pinned memory, and returns.
STAGED = 2**16


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


class Steps:
    """Applies keep sets a step at a time; they are sent to x's device once for all steps."""

    def __init__(self, keep: Keep, x: Tensor) -> None:
        self.keep = keep
        # [S, 1 or B, D]
        self._factors = keep.factors(x) if launches(x) else None
        self._mask = None if launches(x) else sent(compact(keep.mask()), x.device)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Drop and scale the rows ``[n, D]`` of step t: those of the first n samples."""
        if self._mask is None:
            return x * _of(self._factors, x, t)
        return torch.where(_of(self._mask, x, t), x * self.keep.scale, x.new_zeros(()))


def _of(sets: Tensor | None, x: Tensor, t: int) -> Tensor:
    """Return what is one step's, for the rows of x."""
    assert sets is not None
    of_step = sets[t if len(sets) > 1 else 0]  # [1 or B, D]
    return of_step[: len(x)] if len(of_step) > 1 else of_step
