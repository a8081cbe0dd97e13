"""The LSTM: one layer, in one direction, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.ops.engine import LSTMLayer, Projection
from opennmt_sd.ops.naive.linear import masked_linear


@uncompiled  # a loop over the steps
def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    x, keep, weight_ih, bias, weight_hh, h, c, state_keep, batch_sizes, reverse = layer
    gates_x = masked_linear(Projection(x, keep, weight_ih, bias, batch_sizes))
    if batch_sizes is None:
        steps = list(gates_x.unbind(0))  # T of [B, 4H]
    else:
        steps = list(gates_x.split(batch_sizes.tolist()))  # T of [batch_sizes[t], 4H]
    outputs = [h] * len(steps)
    order = range(len(steps))
    for t in reversed(order) if reverse else order:
        n = steps[t].shape[0]  # the sequences that are alive at t come first
        h_t, c_t = h[:n], c[:n]
        if state_keep is not None:
            h_t = state_keep.apply_step(h_t, t)
        h_t, c_t = lstm_gates(steps[t] + F.linear(h_t, weight_hh), c_t)
        outputs[t] = h_t
        h, c = torch.cat([h_t, h[n:]]), torch.cat([c_t, c[n:]])
    if batch_sizes is None:
        return torch.stack(outputs), h, c
    return torch.cat(outputs), h, c


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, dim=-1)  # each [..., H]
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
