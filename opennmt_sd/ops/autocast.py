"""Mixed precision on purpose: inputs become the autocast dtype, as nn.Linear and nn.LSTM do it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.compat import TORCH

LOWERED = (torch.float32, torch.float16, torch.bfloat16)  # float64 stays, as in torch


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return the dtype autocast asks for on this kind of device; None when it is off."""
    if device_type == "meta":  # torch knows no autocast there
        return None
    if TORCH >= (2, 4):
        on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if on else None
    if device_type == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def lowered(x: Tensor, *others: Tensor | None) -> tuple[AbstractContextManager[Any], list[Any]]:
    """Return the tensors in the autocast dtype, and a context where autocast does nothing more."""
    tensors = [x, *others]
    dtype = autocast_dtype(x.device.type)
    if dtype is None:
        return nullcontext(), tensors
    cast = [t.to(dtype) if t is not None and t.dtype in LOWERED else t for t in tensors]
    return torch.autocast(x.device.type, enabled=False), cast
