"""The cpu engine: native kernels for float32 (and float64, correct but not tuned).

Everything works on rows: time steps one after the other, ``[R, D]``.
"""

from opennmt_sd.ops.cpu import philox as _philox  # noqa: F401 - registers itself
from opennmt_sd.ops.cpu.attention import prepare_memory
from opennmt_sd.ops.cpu.binding import has_native, native, require_native, warn_if_missing
from opennmt_sd.ops.cpu.gru import gru_gates, gru_layer
from opennmt_sd.ops.cpu.linear import masked_linear
from opennmt_sd.ops.cpu.lstm import lstm_gates, lstm_layer
from opennmt_sd.ops.cpu.nll import projected_nll
from opennmt_sd.ops.cpu.stepwise import prepare

__all__ = [
    "gru_gates",
    "gru_layer",
    "has_native",
    "lstm_gates",
    "lstm_layer",
    "masked_linear",
    "native",
    "prepare",
    "prepare_memory",
    "projected_nll",
    "require_native",
    "warn_if_missing",
]
