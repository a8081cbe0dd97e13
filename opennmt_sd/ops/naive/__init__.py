"""The naive engine: dense, masked, in plain PyTorch. Written to be read; every engine must agree.

It supports whatever autograd supports: double backward, forward mode, ``torch.func``.
"""

from opennmt_sd.ops.naive.attention import prepare_memory
from opennmt_sd.ops.naive.gru import gru_gates, gru_layer
from opennmt_sd.ops.naive.linear import masked_linear
from opennmt_sd.ops.naive.lstm import lstm_gates, lstm_layer
from opennmt_sd.ops.naive.nll import projected_nll
from opennmt_sd.ops.naive.stepwise import prepare

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
