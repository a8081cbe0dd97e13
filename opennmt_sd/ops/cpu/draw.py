"""The native form of the draws (:mod:`opennmt_sd.draw`): the same bits, far quicker.

Importing this registers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from opennmt_sd import draw
from opennmt_sd.ops.cpu import native


def mask(seed: Tensor, shape: Sequence[int], p: float) -> Tensor:
    module = native()
    if module is None:
        return draw.mask_of(seed, shape, p)
    kept = torch.empty(shape, dtype=torch.bool)
    module.draw_mask(int(seed), math.prod(shape), draw.threshold(p), kept.data_ptr())
    return kept


def sets(seed: Tensor, S: int, D: int, p: float) -> tuple[Tensor, Tensor]:
    module = native()
    if module is None:
        return draw.sets_of(seed, S, D, p)
    idx, count = torch.empty(S, D, dtype=torch.int32), torch.empty(S, dtype=torch.int32)
    module.draw_sets(int(seed), S, D, draw.threshold(p), idx.data_ptr(), count.data_ptr())
    return idx, count


draw.library.impl("draw_mask", mask, "CPU")
draw.library.impl("draw_sets", sets, "CPU")
