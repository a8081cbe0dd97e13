"""The portable engine: compacted with plain torch ops, on any device and any torch >= 2.1.

A structured keep set K turns each product into a smaller one (FP, BP and WG alike):

    FP  y = scale * x[:, K] @ W[:, K].T
    BP  dx[:, K] = scale * dy @ W[:, K]
    WG  dW[:, K] = scale * dy.T @ x[:, K]

Everything below works on rows: time steps one after the other, ``[R, D]`` with R = sum(sizes).
Random (dense) masks, one set for all steps, and no mask at all make one product over all rows.
"""

from opennmt_sd.ops.portable.attention import prepare_memory
from opennmt_sd.ops.portable.gru import gru_gates, gru_layer
from opennmt_sd.ops.portable.linear import masked_linear
from opennmt_sd.ops.portable.lstm import lstm_gates, lstm_layer
from opennmt_sd.ops.portable.nll import projected_nll
from opennmt_sd.ops.portable.stepwise import prepare

__all__ = [
    "gru_gates",
    "gru_layer",
    "lstm_gates",
    "lstm_layer",
    "masked_linear",
    "prepare",
    "prepare_memory",
    "projected_nll",
]
