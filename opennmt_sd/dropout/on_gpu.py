"""Draws on a GPU, where Triton is: the bits of the CPU's draw, by one launch."""

from __future__ import annotations

import functools
import logging
import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.compat import in_transform
from opennmt_sd.dropout.philox import threshold

log = logging.getLogger(__name__)

BLOCK = 256
RANKED = 64  # units of one program, each compared with as many at a time
DEVICES = ("cuda",)


def draw(
    seed: Tensor, shape: tuple[int, ...], p: float, values: tuple[float, float], dtype: torch.dtype,
    device: torch.device, k: int | None = None,
) -> Tensor | None:  # fmt: skip
    """Return a tensor with one value where a unit is kept, another where it is dropped; None where
    that cannot be done on the device.

    Args:
        seed, shape, p: as :func:`opennmt_sd.dropout.philox.draw_mask` takes them.
        values: of what is kept, of what is dropped.
        k: how many units each row of the last axis keeps, whatever p is; None: each by itself.
    """
    n = math.prod(shape)
    # Triton takes the values in float32.
    suits = device.type in DEVICES and n and dtype != torch.float64 and _is_number(seed)
    kernels = _kernels() if suits else None
    if kernels is None:
        return None
    out = torch.empty(shape, dtype=dtype, device=device)
    # A fake has no memory, and in a graph that is captured the seed would stay the same.
    if type(out) is not Tensor or torch.cuda.is_current_stream_capturing():
        return None
    blocks = -(-n // 4)
    with torch.cuda.device_of(out):
        try:
            if k is None:
                kernels.draw[(-(-blocks // BLOCK),)](
                    out, int(seed), n, blocks, threshold(p), *values, BLOCK=BLOCK
                )
            else:
                D = shape[-1]
                kernels.draw_exact[(n // D, -(-D // RANKED))](
                    out, int(seed), blocks, D, k, *values, BLOCK=RANKED
                )
        except Exception as error:  # noqa: BLE001 - a compiler's, a driver's: of any kind
            _give_up(error)
            return None
    return out


def _is_number(seed: Tensor) -> bool:
    """Return whether a seed can be read: it is no fake, and none of ``torch.func``."""
    return type(seed) is Tensor and not in_transform()


@functools.cache
def _kernels() -> Any:
    """Return the module of the kernels; None where there is no Triton."""
    if _failed:
        return None
    try:
        return import_module("opennmt_sd.dropout.draw_kernel")
    except Exception:  # noqa: BLE001 - none, an old one, one that finds no compiler
        return None


_failed: list[bool] = []


def _give_up(error: Exception) -> None:
    """Draw on the CPU from here on."""
    line = str(error).strip().partition("\n")[0]
    log.warning("opennmt_sd: sets are drawn on the CPU (%s: %s)", type(error).__name__, line)
    _failed.append(True)
    _kernels.cache_clear()
