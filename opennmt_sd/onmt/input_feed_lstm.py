"""The LSTM layers of a decoder with input feed, one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.onmt.sorted_targets import SortedTargets


class InputFeedLSTM:
    """The layers for one forward and backward pass over a batch, with their states.

    The embeddings' part of the first layer's gates does not wait for the feed: it is one product
    over all steps.

    Args:
        layers: L of ``nn.LSTMCell``.
        targets: which sentences go on at each step.
        emb: packed rows ``[R, E]``, raw.
        keep_emb: what is kept of them.
        keep_inputs: what is kept of each layer's other input: the feed, then the layer below.
        keep_states: what is kept of each layer's h before its recurrent weight.
        states: the first h and c, ``[L, B, H]`` each, sorted.
    """

    def __init__(
        self,
        layers: list[nn.LSTMCell],
        targets: SortedTargets,
        emb: Tensor,
        keep_emb: Keep | None,
        keep_inputs: list[Keep | None],
        keep_states: list[Keep | None],
        states: tuple[Tensor, Tensor],
    ) -> None:
        E, H = emb.shape[1], layers[0].hidden_size
        biases = [layer.bias_ih + layer.bias_hh for layer in layers]
        w_emb, w_feed = layers[0].weight_ih.split([E, H], 1)
        gates_emb = ops.masked_linear(emb, keep_emb, w_emb, biases[0], batch_sizes=targets.sizes)
        self._gates_emb = targets.steps(gates_emb)  # T of [n, 4H]
        upper = [ops.prepare(layer.weight_ih, b) for layer, b in zip(layers[1:], biases[1:])]
        self._w_inputs = [ops.prepare(w_feed), *upper]
        self._w_states = [ops.prepare(layer.weight_hh) for layer in layers]
        self._keep_inputs, self._keep_states = keep_inputs, keep_states
        self._h, self._c = (list(state.unbind(0)) for state in states)  # L of [n, H]
        self._ended: list[tuple[Tensor, Tensor]] = []

    def step(self, t: int, feed: Tensor) -> Tensor:
        """Return the top layer's h at step t, ``[n, H]``; feed: ``[n, H]``."""
        h, c, x = self._h, self._c, feed
        if len(feed) < len(h[0]):
            self._leave(len(feed))
        for k in range(len(h)):
            gates = ops.masked_linear_step(self._w_inputs[k], x, self._keep_inputs[k], t)
            gates = gates + ops.masked_linear_step(self._w_states[k], h[k], self._keep_states[k], t)
            if k == 0:
                gates = gates + self._gates_emb[t]
            h[k], c[k] = ops.lstm_gates(gates, c[k])
            x = h[k]
        return x

    def _leave(self, n: int) -> None:
        """Put aside the states of the sentences from the n-th on, which have ended."""
        h, c = (torch.stack([x[n:] for x in state]) for state in (self._h, self._c))
        self._ended.append((h, c))
        for state in (self._h, self._c):
            state[:] = [x[:n] for x in state]

    def final(self) -> tuple[Tensor, Tensor]:
        """Return h and c after each sentence's last step, ``[L, B, H]`` each, sorted."""
        last = torch.stack(self._h), torch.stack(self._c)
        h, c = (torch.cat(parts, 1) for parts in zip(last, *reversed(self._ended)))
        return h, c
