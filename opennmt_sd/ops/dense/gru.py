"""The GRU: one layer in one direction, and the gates of one step."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opennmt_sd import compat
from opennmt_sd._compile import uncompiled
from opennmt_sd.ops import naive
from opennmt_sd.ops.dense.cells import GRU, fused
from opennmt_sd.ops.dense.linear import masked_linear
from opennmt_sd.ops.dense.recurrence import Operands, Recurrence, recurrence
from opennmt_sd.ops.engine import GRULayer, projection_of


def gru_layer(layer: GRULayer) -> tuple[Tensor, Tensor]:
    return layer_by(recurrence, layer)


@uncompiled  # loops over steps whose sizes only the data know
def layer_by(recurrence: Recurrence, layer: GRULayer) -> tuple[Tensor, Tensor]:
    """Run one layer in one direction by this recurrence."""
    h, bias_hn = layer.h, layer.bias_hn
    # r and z have theirs in bias
    bias_h = None if bias_hn is None else F.pad(bias_hn, (2 * h.shape[1], 0))
    y, (h,) = recurrence(
        Operands(
            cell=GRU(), gates_x=masked_linear(projection_of(layer)), weight_hh=layer.weight_hh,
            bias_h=bias_h, state=(h,), keep=layer.state_keep, batch_sizes=layer.batch_sizes,
            reverse=layer.reverse,
        )
    )  # fmt: skip
    return y, h


def gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    if not fused(gates_x):
        return naive.gru_gates(gates_x, gates_h, h)
    return compat.gru_cell(gates_x, gates_h, h)[0]
