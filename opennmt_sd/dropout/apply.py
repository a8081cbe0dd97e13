"""Dropping and scaling on a GPU: in one launch either way, and without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.compat import in_transform, is_compiling

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
