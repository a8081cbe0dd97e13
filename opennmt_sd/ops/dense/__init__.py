"""The dense engine: a masked input and torch's own products, for devices without kernels of ours.

On a GPU a launch costs what thousands of multiplications do. So the ops are what torch's own layers
do, on an input that is masked: in a number of launches that depends neither on T nor on V; what
is recurrent alone grows with T. Nothing reads back from the device. Where all steps share one set
(Case IV), the kept columns are gathered once, and the products shrink.
"""

from opennmt_sd.ops.dense.attention import prepare_memory
from opennmt_sd.ops.dense.gru import gru_gates, gru_layer
from opennmt_sd.ops.dense.linear import masked_linear
from opennmt_sd.ops.dense.lstm import lstm_gates, lstm_layer
from opennmt_sd.ops.dense.nll import projected_nll
from opennmt_sd.ops.dense.stepwise import prepare

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
