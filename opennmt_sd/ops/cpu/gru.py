"""The GRU: one layer in one direction, and the gates of a step."""

from opennmt_sd.ops.portable.gru import gru_gates, gru_layer

__all__ = ["gru_gates", "gru_layer"]
