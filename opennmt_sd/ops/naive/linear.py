"""The masked linear layer: mask, scale, multiply."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.ops.engine import Projection


def masked_linear(projection: Projection) -> Tensor:
    x, keep = projection.x, projection.keep
    if keep is not None:
        x = keep.apply(x, projection.batch_sizes)
    return F.linear(x, projection.weight, projection.bias)
