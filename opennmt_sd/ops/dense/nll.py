"""The loss of a projection onto the vocabulary: torch's own, over all rows at once."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd.ops.dense.linear import masked_linear
from opennmt_sd.ops.engine import Loss, Projection
from opennmt_sd.ops.naive.nll import nll_of


def projected_nll(projection: Projection, loss: Loss) -> tuple[Tensor, Tensor]:
    return nll_of(masked_linear(projection), loss)
