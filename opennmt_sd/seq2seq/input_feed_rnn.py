"""The layers of a decoder with input feed, one step at a time, whatever the cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.seq2seq.sorted_targets import SortedTargets

State = tuple[Tensor, ...]


class InputFeedRNN:
    """Hold the layers for one forward and backward pass over a batch, with their states.

    The embeddings' part of the first layer's gates does not wait for the feed: it is one product
    over all steps. A subclass brings what is the cell's own.

    Args:
        layers: L of torch's cells.
        targets: which sentences go on at each step.
        emb: packed rows ``[R, E]``, raw.
        keep_emb: what is kept of them.
        keep_inputs: what is kept of each layer's other input: the feed, then the layer below.
        keep_states: what is kept of each layer's h before its recurrent weight.
        states: the first ones: h and what else a state has, ``[L, B, H]`` each, sorted.

    Attributes:
        parts: tensors of a state; h is the first.
    """

    parts: ClassVar[int]

    def __init__(
        self,
        layers: Sequence[Any],
        targets: SortedTargets,
        emb: Tensor,
        keep_emb: Keep | None,
        keep_inputs: list[Keep | None],
        keep_states: list[Keep | None],
        states: State,
    ) -> None:
        E, H = emb.shape[1], layers[0].hidden_size
        (of_emb, *of_inputs), of_states = zip(*map(self.biases, layers))
        w_emb, w_feed = layers[0].weight_ih.split([E, H], 1)
        gates_emb = ops.masked_linear(emb, keep_emb, w_emb, of_emb, batch_sizes=targets.sizes)
        self._gates_emb = targets.steps(gates_emb)  # T of [n, gates H]
        upper = [ops.prepare(layer.weight_ih, b) for layer, b in zip(layers[1:], of_inputs)]
        self._w_inputs = [ops.prepare(w_feed), *upper]
        self._w_states = [ops.prepare(layer.weight_hh, b) for layer, b in zip(layers, of_states)]
        self._keep_inputs, self._keep_states = keep_inputs, keep_states
        self._states: list[State] = list(zip(*states))  # L, of [n, H] each
        self._ended: list[State] = []

    @staticmethod
    def biases(layer: Any) -> tuple[Tensor, Tensor | None]:
        """Return what is added to the product of a layer's input, and to that of its state."""
        raise NotImplementedError

    @staticmethod
    def advance(gates_x: Tensor, gates_h: Tensor, gates_emb: Tensor | None, state: State) -> State:
        """Return the next state of a layer, ``[n, H]`` each.

        Args:
            gates_x, gates_h: the products of the input and of the state, ``[n, gates H]`` each.
            gates_emb: in the first layer the product of the embeddings, a part of the input.
            state: undropped.
        """
        raise NotImplementedError

    def step(self, t: int, feed: Tensor) -> Tensor:
        """Return the top layer's h at step t, ``[n, H]``; feed: ``[n, H]``."""
        states, x = self._states, feed
        if len(feed) < len(states[0][0]):
            self._leave(len(feed))
        for k, state in enumerate(states):
            gates_x = ops.masked_linear_step(self._w_inputs[k], x, self._keep_inputs[k], t)
            gates_h = ops.masked_linear_step(self._w_states[k], state[0], self._keep_states[k], t)
            gates_emb = None if k else self._gates_emb[t]
            states[k] = self.advance(gates_x, gates_h, gates_emb, state)
            x = states[k][0]
        return x

    def _leave(self, n: int) -> None:
        """Put aside the states of the sentences from the n-th on, which have ended."""
        self._ended.append(_stacked([tuple(x[n:] for x in state) for state in self._states]))
        self._states[:] = [tuple(x[:n] for x in state) for state in self._states]

    def final(self) -> State:
        """Return the states after each sentence's last step, ``[L, B, H]`` each, sorted."""
        parts = zip(_stacked(self._states), *reversed(self._ended))
        return tuple(torch.cat(part, 1) for part in parts)


def _stacked(states: list[State]) -> State:
    """Return the states of L layers as one, ``[L, n, H]`` each."""
    return tuple(torch.stack(part) for part in zip(*states))
