"""Mixed precision on purpose: inputs become the autocast dtype, as nn.Linear and nn.LSTM do it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
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
    return off(x.device.type), cast(tensors, dtype)


def cast(tensors: Iterable[Tensor | None], dtype: torch.dtype) -> list[Any]:
    """Return tensors as autocast would: what it does not know stays, for the checks to refuse."""
    return [t.to(dtype) if t is not None and t.dtype in LOWERED else t for t in tensors]


def not_lowered(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a backward pass compute in what its forward pass has computed in, also where it runs
    within autocast."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Tensor | None) -> Any:
        given = next((d for d in gradients if d is not None), None)
        with nullcontext() if given is None else off(given.device.type):
            return backward(ctx, *gradients)

    return wrapped


def off(device_type: str) -> AbstractContextManager[Any]:
    """Return a context without autocast on this kind of device."""
    if autocast_dtype(device_type) is None:
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
