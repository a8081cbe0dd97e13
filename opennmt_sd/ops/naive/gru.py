"""The GRU: one layer, in one direction, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.ops.engine import GRULayer, projection_of
from opennmt_sd.ops.naive.linear import masked_linear
from opennmt_sd.ops.naive.recurrence import State, recurrence


@uncompiled  # a loop over the steps
def gru_layer(layer: GRULayer) -> tuple[Tensor, Tensor]:
    state_keep, weight_hh, bias_hn = layer.state_keep, layer.weight_hh, layer.bias_hn
    H = layer.h.shape[1]
    bias_hh = None if bias_hn is None else F.pad(bias_hn, (2 * H, 0))  # r and z have theirs in bias

    def step(gates_x: Tensor, state: State, t: int) -> State:
        (h,) = state
        kept = h if state_keep is None else state_keep.apply_step(h, t)
        return (gru_gates(gates_x, F.linear(kept, weight_hh, bias_hh), h),)

    outputs, (h,) = recurrence(
        masked_linear(projection_of(layer)), (layer.h,), step, layer.batch_sizes, layer.reverse
    )
    return outputs, h


def gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    (r_x, z_x, n_x), (r_h, z_h, q) = (gates.chunk(3, dim=-1) for gates in (gates_x, gates_h))
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * q)
    return (1 - z) * n + z * h
