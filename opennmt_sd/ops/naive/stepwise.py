"""The masked linear layer, a step at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.dropout import Keep


@dataclass(eq=False)
class Weight:
    """A weight ``[N, D]`` and a bias ``[N]``, as they are."""

    weight: Tensor
    bias: Tensor | None

    def step(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        return F.linear(x if keep is None else keep.apply_step(x, t), self.weight, self.bias)


def prepare(weight: Tensor, bias: Tensor | None) -> Weight:
    return Weight(weight, bias)
