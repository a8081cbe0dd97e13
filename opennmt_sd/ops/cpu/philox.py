"""The native form of the draws (:mod:`opennmt_sd.dropout.philox`): the same bits, far quicker.

Importing this registers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from opennmt_sd.dropout import philox
from opennmt_sd.ops.cpu.binding import native


def mask(seed: Tensor, shape: Sequence[int], p: float) -> Tensor:
    module = native()
    if module is None:
        return philox.mask_of(seed, shape, p)
    kept = seed.new_empty(shape, dtype=torch.bool)
    module.draw_mask(int(seed), math.prod(shape), philox.threshold(p), kept.data_ptr())
    return kept


def factors_for(
    x: Tensor, seed: Tensor, shape: tuple[int, ...], p: float, scale: float
) -> Tensor | None:
    module = native()
    if module is None:
        return None
    if x.dtype == torch.float32:
        draw = module.draw_factors_f32
    elif x.dtype == torch.float64:
        draw = module.draw_factors_f64
    else:  # in which a scale is not as exact
        return None
    if not x.is_contiguous() and not (x.dim() == 3 and x.transpose(0, 1).is_contiguous()):
        return None
    factors = torch.empty(shape, dtype=x.dtype, device="cpu")
    multiplies = draw(
        seed=int(seed), n=math.prod(shape), threshold=philox.threshold(p), scale=scale,
        factors=factors.data_ptr(), x=x.data_ptr(), size=x.numel(),
    )  # fmt: skip
    return factors if multiplies else None


def sets(seed: Tensor, S: int, D: int, p: float) -> tuple[Tensor, Tensor]:
    module = native()
    if module is None:
        return philox.sets_of(seed, S, D, p)
    return _drawn(module.draw_sets, seed, S, D, philox.threshold(p))


def exact_sets(seed: Tensor, S: int, D: int, k: int) -> tuple[Tensor, Tensor]:
    module = native()
    if module is None:
        return philox.exact_sets_of(seed, S, D, k)
    return _drawn(module.draw_exact_sets, seed, S, D, k)


def _drawn(
    draw: Callable[..., None], seed: Tensor, S: int, D: int, number: int
) -> tuple[Tensor, Tensor]:
    """Let a native draw fill idx int32 ``[S, D]`` and count int32 ``[S]``."""
    idx = torch.empty(S, D, dtype=torch.int32, device="cpu")
    count = torch.empty(S, dtype=torch.int32, device="cpu")
    draw(int(seed), S, D, number, idx.data_ptr(), count.data_ptr())
    return idx, count


philox.implement("draw_mask", mask)
philox.provide("factors_for", factors_for)
philox.implement("draw_sets", sets)
philox.implement("draw_exact_sets", exact_sets)
