"""The masked linear layer: torch's own, on a masked input, or on what all steps keep (Case IV)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.dropout import KeepSets
from opennmt_sd.dropout.apply import sent
from opennmt_sd.ops.engine import Projection


def masked_linear(projection: Projection) -> Tensor:
    x, keep, weight = projection.x, projection.keep, projection.weight
    if isinstance(keep, KeepSets) and keep.steps == 1 and x.shape[0] > 1:
        x, (weight,) = gathered(x, keep, weight)
    elif keep is not None:
        x = keep.apply(x, projection.batch_sizes)
    return F.linear(x, weight, projection.bias)


def gathered(x: Tensor, keep: KeepSets, *weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return what all steps keep, scaled, and the weights' columns for it.

    Args:
        x: ``[.., D]``.
        keep: one set.
        weights: ``[N, D]`` each.
    """
    units = sent(keep.kept(0), x.device)
    kept = x.index_select(-1, units) * keep.scale
    return kept, [weight.index_select(1, units) for weight in weights]
