"""The dense engine as it runs by itself: its recurrence the way that was measured to be faster."""

from torch import Tensor

from opennmt_sd.ops.dense import (
    gru,
    gru_gates,
    lstm,
    lstm_gates,
    masked_linear,
    prepare,
    prepare_memory,
    projected_nll,
)
from opennmt_sd.ops.engine import GRULayer, LSTMLayer
from opennmt_sd.ops.measured.faster import recurrence

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


def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    return lstm.layer_by(recurrence, layer)


def gru_layer(layer: GRULayer) -> tuple[Tensor, Tensor]:
    return gru.layer_by(recurrence, layer)
