"""The masked linear layer: mask, scale, multiply."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.ops.engine import Projection


def masked_linear(projection: Projection) -> Tensor:
    x, keep, weight, bias, batch_sizes = projection
    return F.linear(x if keep is None else keep.apply(x, batch_sizes), weight, bias)
