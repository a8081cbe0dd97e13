"""DropConnect on recurrent weights: what AWD-LSTM drops, and structured RH replaces.

A weight of its own is dropped, not a unit: no column of the product becomes zero, so nothing
shrinks.

Source: Merity et al., "Regularizing and Optimizing LSTM Language Models", ICLR 2018, section 2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from opennmt_sd.dropout import check_rate


class WeightDrop(nn.Module):
    """A parametrization: in training each entry is dropped with probability p, anew at each read.

    Args:
        p: rate in [0, 1).

    Raises:
        ValueError, TypeError: no rate.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = check_rate(p, "weight_drop")

    def forward(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop_recurrent_weights(layers: nn.Module, p: float) -> None:
    """Put :class:`WeightDrop` on every ``weight_hh`` of layers that read their weights at forward.

    The parameter is then called ``parametrizations.weight_hh_l0.original``. One mask serves a
    whole forward call, so all its steps. torch's own layers keep a list of their weights and
    would not notice; the structured ones read them.
    """
    names = [name for name, _ in layers.named_parameters() if name.startswith("weight_hh")]
    for name in names:
        parametrize.register_parametrization(layers, name, WeightDrop(p))
