"""A language model that learns from Shakespeare, whose gradient is then asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.lm.batches import Batches, segments, streams
from opennmt_sd.lm.data import Corpus
from opennmt_sd.lm.model import LanguageModel, State

LAYERS, T = 2, 16
LEARNING_RATE, CLIP = 0.002, 5.0


class TrainedLanguageModel:
    """2 layers, dropout on every layer's input and output.

    Args:
        p: rate; every row drops its own units.
        B: rows.
        width: of the words' vectors and the layers.
        updates: of Adam.
        batches: how many there are to ask for: those behind the last update.
    """

    def __init__(self, p: float, B: int, width: int, updates: int, batches: int) -> None:
        corpus = Corpus.sample()
        pattern = DropoutPattern(p, space="random")
        self.model = LanguageModel(
            len(corpus.vocabulary), embedding=width, hidden=width, layers=LAYERS, nr=pattern,
            fc=pattern,
        )  # fmt: skip
        self.batches = batches
        columns = streams(corpus.train, B)
        data = Batches(columns, segments(len(columns), T))
        self._last: list[tuple[Tensor, Tensor, State | None]] = []
        self._learn(data, updates)

    def _learn(self, data: Batches, updates: int) -> None:
        optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        state: State | None = None
        for i in range(updates + self.batches):
            place = i % (len(data) - 1)  # the last one may be short
            state = state if place else None
            ids, targets = data[place]
            if i >= updates:
                self._last.append((ids, targets, state))
            loss, _, state = self.model(ids, targets, state)
            if i < updates:
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
                optimizer.step()

    def gradient(self, batch: int) -> Tensor:
        """Return the gradient of a batch, ``[N]``, with a draw of its own."""
        loss = self.model(*self._last[batch]).loss
        gradients = torch.autograd.grad(loss, [*self.model.parameters()])
        return torch.cat([g.flatten() for g in gradients])
