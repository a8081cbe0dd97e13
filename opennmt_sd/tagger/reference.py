"""The same tagger in plain torch: its recurrent layers and ``nn.Dropout``, as one would write it
today.

The benchmark's first baseline, and what the tests compare the tagger with. Parameters have the
same names and shapes, so a state dict goes both ways.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.nn import by_name, revert
from opennmt_sd.tagger.batches import Batch
from opennmt_sd.tagger.heads import Head, head
from opennmt_sd.tagger.model import (
    TaggerConfig,
    WordEmbedding,
    char_encoder,
    initialise,
)
from opennmt_sd.tagger.vocabulary import FIRST_CHAR, Vocabulary


class PlainTagger(nn.Module):
    """A :class:`~opennmt_sd.tagger.model.Tagger` with ordinary dropout at the same rates.

    Embeddings, character encoder and head are the same modules, the encoder's LSTM torch's own.
    ``recurrent_dropout`` is left out: torch's layers have none.

    Args:
        config: its shape; of the patterns, the rates count.
        vocabulary: how many words, characters and tags there are.
    """

    def __init__(self, config: TaggerConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.words = WordEmbedding(
            vocabulary.trained, len(vocabulary.unseen), config.word_dim
        ).requires_grad_(config.fine_tune)
        self.chars = revert(char_encoder(config, FIRST_CHAR + len(vocabulary.chars)))
        self.drop_input = nn.Dropout(config.input_dropout.p)
        layers = by_name.TORCHS[config.cell](
            config.word_dim + self.chars.width, config.hidden, config.layers, bidirectional=True,
            dropout=config.dropout.p if config.layers > 1 else 0.0,
        )  # fmt: skip
        self.add_module(config.cell, layers)
        self.drop_output = nn.Dropout(config.output_dropout.p)
        width = 2 * config.hidden
        self.projection = nn.Linear(width, config.projection) if config.projection else None
        K = len(vocabulary.tags)
        self.output = nn.Linear(config.projection or width, K)
        self.head: Head = head(config.head, K)
        initialise(self)

    def forward(self, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of the batch's tags in nats, summed over sentences."""
        assert batch.tags is not None
        return self.head.nll(self.scores(batch), batch.tags, batch.sizes)

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores of every tag, ``[R, K]``."""
        x = self.words(batch.words)
        if self.chars.width:
            x = torch.cat([x, F.embedding(batch.spelling, self.chars(*batch.chars))], 1)
        recurrent = self.get_submodule(self.config.cell)
        packed, _ = recurrent(PackedSequence(self.drop_input(x), batch.sizes))
        y = self.drop_output(packed.data)  # [R, 2H]
        if self.projection is not None:
            y = torch.tanh(self.projection(y))
        return self.output(y)

    @torch.no_grad()
    def decode(self, batch: Batch) -> Tensor:
        """Return the best tags' numbers: int64 ``[R]``, in the batch's order of rows."""
        return self.head.decode(self.scores(batch), batch.sizes)
