"""The ops: one contract, several engines. Every public function checks, and chooses the engine.

Axis names: T time, B batch, D input features, H hidden, N output features. Gate order i, f, g, o of
an LSTM, and r, z, n of a GRU.

A sequence is ``[T, B, .]``, or packed: ``[sum(batch_sizes), .]`` with ``batch_sizes`` as in
``torch.nn.utils.rnn.PackedSequence`` (int64 on the CPU, never growing).

Derivatives: backward on every engine; double backward on the naive one alone. In ``torch.func``
(grad, vmap, jvp, ...) and forward mode every op runs on the naive engine, whichever is forced.

Source: Sarma et al., "Structured in Space, Randomized in Time", NeurIPS 2021, section 3.
"""

from opennmt_sd.ops.attention import attend_step, prepare_memory
from opennmt_sd.ops.calibration import calibrate, measurable
from opennmt_sd.ops.dense.linear import gathered
from opennmt_sd.ops.engines import (
    SMALL_LAYER,
    engine_for,
    forced,
    has_kernels,
    leaves_out,
    left_to_torch,
    reads_back,
    use,
    worth_compacting,
    worth_gathering,
)
from opennmt_sd.ops.forked import calm_children
from opennmt_sd.ops.gathering import Shared, gathers
from opennmt_sd.ops.gru import gru_gates, gru_layer
from opennmt_sd.ops.linear import masked_linear
from opennmt_sd.ops.lstm import lstm, lstm_gates, lstm_layer
from opennmt_sd.ops.measured.faster import kernels_alone
from opennmt_sd.ops.measured.layer import Layer, faster_by_kernels
from opennmt_sd.ops.nll import projected_nll
from opennmt_sd.ops.stepwise import masked_linear_step, prepare

__all__ = [
    "SMALL_LAYER",
    "Layer",
    "Shared",
    "attend_step",
    "calibrate",
    "engine_for",
    "faster_by_kernels",
    "forced",
    "gathered",
    "gathers",
    "gru_gates",
    "gru_layer",
    "has_kernels",
    "kernels_alone",
    "leaves_out",
    "left_to_torch",
    "lstm",
    "lstm_gates",
    "lstm_layer",
    "masked_linear",
    "masked_linear_step",
    "measurable",
    "prepare",
    "prepare_memory",
    "projected_nll",
    "reads_back",
    "use",
    "worth_compacting",
    "worth_gathering",
]

calm_children()
