"""The LSTM: one layer in one direction, and the gates of one step."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd import compat
from opennmt_sd._compile import uncompiled
from opennmt_sd.ops import naive
from opennmt_sd.ops.dense.cells import LSTM, fused
from opennmt_sd.ops.dense.linear import masked_linear
from opennmt_sd.ops.dense.recurrence import Operands, Recurrence, recurrence
from opennmt_sd.ops.engine import LSTMLayer, projection_of


def lstm_layer(layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    return layer_by(recurrence, layer)


@uncompiled  # loops over steps whose sizes only the data know
def layer_by(recurrence: Recurrence, layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction by this recurrence."""
    y, (h, c) = recurrence(
        Operands(
            cell=LSTM(), gates_x=masked_linear(projection_of(layer)), weight_hh=layer.weight_hh,
            bias_h=None, state=(layer.h, layer.c), keep=layer.state_keep,
            batch_sizes=layer.batch_sizes, reverse=layer.reverse,
        )
    )  # fmt: skip
    return y, h, c


def lstm_gates(gates: Tensor, c: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if not fused(gates) or added is None or c.dtype != gates.dtype:
        return naive.lstm_gates(gates, c, added)
    h, c, _ = compat.lstm_cell(gates, added, c)
    return h, c
