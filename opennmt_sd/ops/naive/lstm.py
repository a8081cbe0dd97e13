"""The LSTM: one layer, in one direction, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.ops.engine import LSTMLayer, projection_of
from opennmt_sd.ops.naive.linear import masked_linear
from opennmt_sd.ops.naive.recurrence import State, recurrence


@uncompiled  # a loop over the steps
def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    state_keep, weight_hh = layer.state_keep, layer.weight_hh

    def step(gates_x: Tensor, state: State, t: int) -> State:
        h, c = state
        kept = h if state_keep is None else state_keep.apply_step(h, t)
        return lstm_gates(gates_x + F.linear(kept, weight_hh), c)

    gates_x = masked_linear(projection_of(layer))
    outputs, (h, c) = recurrence(
        gates_x, (layer.h, layer.c), step, layer.batch_sizes, layer.reverse
    )
    return outputs, h, c


def lstm_gates(gates: Tensor, c: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    gates = gates if added is None else gates + added
    i, f, g, o = gates.chunk(4, dim=-1)  # each [..., H]
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
