"""Draws on a GPU, where Triton is: the bits of the CPU's draw, by one launch."""

from __future__ import annotations

import functools
import logging
import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.dropout.philox import threshold

log = logging.getLogger(__name__)

BLOCK = 256


def draw(
    seed: Tensor, shape: tuple[int, ...], p: float, values: tuple[float, float], dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:  # fmt: skip
    """Return a tensor with one value where a unit is kept, another where it is dropped; None where
    that cannot be done on the device.

    Args:
        seed, shape, p: as :func:`opennmt_sd.dropout.philox.draw_mask` takes them.
        values: of what is kept, of what is dropped.
    """
    n = math.prod(shape)
    # A seed that is a fake, or one of a batch, is of another type.
    kernel = _kernel() if device.type == "cuda" and type(seed) is Tensor else None
    if kernel is None or not n:
        return None
    out = torch.empty(shape, dtype=dtype, device=device)
    blocks = -(-n // 4)
    with torch.cuda.device(device):
        try:
            kernel[(-(-blocks // BLOCK),)](
                out, int(seed), n, blocks, threshold(p), *values, BLOCK=BLOCK
            )
        except Exception as error:  # noqa: BLE001 - a compiler's, a driver's: of any kind
            _give_up(error)
            return None
    return out


@functools.cache
def _kernel() -> Any:
    """Return the kernel; None where there is no Triton."""
    if _failed:
        return None
    try:
        return import_module("opennmt_sd.dropout.draw_kernel").draw
    except Exception:  # noqa: BLE001 - none, an old one, one that finds no compiler
        return None


_failed: list[bool] = []


def _give_up(error: Exception) -> None:
    """Draw on the CPU from here on."""
    line = str(error).strip().partition("\n")[0]
    log.warning("opennmt_sd: sets are drawn on the CPU (%s: %s)", type(error).__name__, line)
    _failed.append(True)
    _kernel.cache_clear()
