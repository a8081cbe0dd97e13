"""The kernels as functions of tensors: every call checks what the native side takes on trust.

Axis names: T time, B batch, R rows (the sum of ``sizes``), D inputs, H hidden, N outputs, S keep
sets. ``sizes`` are the rows of each step, ``sets`` what is kept; by default everything. All
tensors are on the CPU, float32 or float64.
"""

from opennmt_sd.ops.cpu.kernels import gru
from opennmt_sd.ops.cpu.kernels.attention import attend_bp, attend_fp
from opennmt_sd.ops.cpu.kernels.call import DTYPES, Rows, Sets
from opennmt_sd.ops.cpu.kernels.linear import (
    linear_bp,
    linear_fp,
    linear_wg,
    prepare,
    step_bp,
    step_fp,
    steps_wg,
)
from opennmt_sd.ops.cpu.kernels.lstm import (
    Layer,
    LayerBP,
    Needs,
    gates_bp,
    gates_fp,
    layer_bp,
    layer_fp,
    lstm_bp,
    lstm_fp,
    lstm_wg,
)
from opennmt_sd.ops.cpu.kernels.nll import nll_

__all__ = [
    "DTYPES",
    "Layer",
    "LayerBP",
    "Needs",
    "Rows",
    "Sets",
    "attend_bp",
    "attend_fp",
    "gates_bp",
    "gates_fp",
    "gru",
    "layer_bp",
    "layer_fp",
    "linear_bp",
    "linear_fp",
    "linear_wg",
    "lstm_bp",
    "lstm_fp",
    "lstm_wg",
    "nll_",
    "prepare",
    "step_bp",
    "step_fp",
    "steps_wg",
]
