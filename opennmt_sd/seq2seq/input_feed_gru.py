"""The GRU layers of a decoder with input feed, one step at a time."""

from __future__ import annotations

from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.seq2seq.input_feed_rnn import InputFeedRNN, State


class InputFeedGRU(InputFeedRNN):
    """Layers of ``nn.GRUCell``; a state is h alone.

    Its reset gate acts on the state's product, bias included: both products keep apart.
    """

    parts = 1

    @staticmethod
    def biases(layer: nn.GRUCell) -> tuple[Tensor, Tensor | None]:
        return layer.bias_ih, layer.bias_hh

    @staticmethod
    def advance(gates_x: Tensor, gates_h: Tensor, gates_emb: Tensor | None, state: State) -> State:
        gates_x = gates_x if gates_emb is None else gates_x + gates_emb
        return (ops.gru_gates(gates_x, gates_h, state[0]),)
