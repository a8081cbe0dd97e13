"""The LSTM layers of a decoder with input feed, one step at a time."""

from __future__ import annotations

from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.seq2seq.input_feed_rnn import InputFeedRNN, State


class InputFeedLSTM(InputFeedRNN):
    """Layers of ``nn.LSTMCell``; a state is h and c."""

    parts = 2

    @staticmethod
    def biases(layer: nn.LSTMCell) -> tuple[Tensor, Tensor | None]:
        return layer.bias_ih + layer.bias_hh, None

    @staticmethod
    def advance(gates_x: Tensor, gates_h: Tensor, gates_emb: Tensor | None, state: State) -> State:
        if gates_emb is None:
            return ops.lstm_gates(gates_x, state[1], gates_h)
        return ops.lstm_gates(gates_x + gates_h, state[1], gates_emb)
