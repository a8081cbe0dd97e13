"""Character encoders: a vector for each distinct word of a batch, without work on padding.

Axis names: W distinct words, N characters of all of them, C character embedding, F output.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.nn import StructuredLSTM
from opennmt_sd.tagger.vocabulary import PAD, Ids

ODD = "odd", "it is centred on a character"  # the window of a CNN
EVEN = "even", "it has two directions"  # the width of an LSTM


def parity(chars: str, width: int, window: int) -> tuple[str, tuple[str, str]] | None:
    """Return which of two sizes has the wrong parity, with the rule and why; None where none has.

    Args:
        chars: ``"cnn"`` or ``"lstm"``; others have no such rule.
        width, window: as the encoders take them.
    """
    if chars == "cnn" and window % 2 == 0:
        return "window", ODD
    if chars == "lstm" and width % 2:
        return "width", EVEN
    return None


class CharEncoder(Protocol):
    """``layout`` makes of W words what the module's forward takes; that gives ``[W, width]``."""

    width: int

    def layout(self, words: list[Ids]) -> tuple[Tensor, ...]: ...

    def __call__(self, *chars: Tensor) -> Tensor: ...


class CharCNN(nn.Module):
    """A convolution over a word's characters, and the greatest value of each filter.

    Args:
        count: characters, the padding (number 0) included.
        dim: C, of a character's embedding.
        width: F, filters.
        window: characters a filter sees; odd.
        dropout: rate of ordinary dropout on the embeddings.

    Words lie side by side, with as many zeros between them as a window reaches, so that one
    convolution serves all.

    Source: Ma and Hovy 2016, section 2.1.
    """

    def __init__(
        self, count: int, dim: int = 30, width: int = 30, window: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if window < 1 or parity("cnn", width, window):
            raise ValueError(
                f"the window of the character CNN must be {ODD[0]}, got {window}: {ODD[1]}"
            )
        self.width, self.reach, self.dropout = width, window // 2, dropout
        self.embedding = nn.Embedding(count, dim, padding_idx=PAD)
        self.convolution = nn.Conv1d(dim, width, window, padding=self.reach)

    def layout(self, words: list[Ids]) -> tuple[Tensor, ...]:
        """Return the characters in one row with gaps, where they are in it, and word lengths."""
        lengths = np.array([len(word) for word in words])
        word = np.repeat(np.arange(len(words)), lengths)  # [N]
        places = np.arange(len(word)) + word * self.reach
        line = np.full(places[-1] + 1, PAD)
        line[places] = np.concatenate(words)
        return torch.from_numpy(line), torch.from_numpy(places), torch.from_numpy(lengths)

    def forward(self, line: Tensor, places: Tensor, lengths: Tensor) -> Tensor:
        x = F.dropout(self.embedding(line), self.dropout, self.training)  # [N + gaps, C]
        y = self.convolution(x.t().unsqueeze(0)).squeeze(0).t()  # [N + gaps, F]
        return torch.segment_reduce(y.index_select(0, places), "max", lengths=lengths, unsafe=True)


class CharLSTM(nn.Module):
    """The last states of an LSTM in both directions.

    Args:
        count, dim, dropout: as in :class:`CharCNN`.
        width: F, both directions together; even.

    Source: Lample et al. 2016, section 4.1.
    """

    def __init__(self, count: int, dim: int = 25, width: int = 50, dropout: float = 0.0) -> None:
        super().__init__()
        if width < 2 or parity("lstm", width, 1):
            raise ValueError(
                f"the width of the character LSTM must be {EVEN[0]}, got {width}: {EVEN[1]}"
            )
        self.width, self.dropout = width, dropout
        self.embedding = nn.Embedding(count, dim, padding_idx=PAD)
        self.lstm = StructuredLSTM(dim, width // 2, bidirectional=True)
        self.lstm.exact = False  # it drops nothing, and is quicker by our kernels

    def layout(self, words: list[Ids]) -> tuple[Tensor, ...]:
        """Return packed characters and sizes, and where in the packed order each word is."""
        lengths = np.array([len(word) for word in words])
        order = np.argsort(-lengths, kind="stable")
        steps = np.arange(lengths.max())[:, None]
        alive = steps < lengths[order]  # [longest, W]
        begin = (np.cumsum(lengths) - lengths)[order]
        chars = np.concatenate(words)[(begin + steps)[alive]]  # [N]
        parts = chars, alive.sum(1), np.argsort(order)
        return tuple(torch.from_numpy(part) for part in parts)

    def forward(self, chars: Tensor, sizes: Tensor, back: Tensor) -> Tensor:
        x = F.dropout(self.embedding(chars), self.dropout, self.training)  # [N, C]
        _, (h, _) = self.lstm(PackedSequence(x, sizes.cpu()))  # [2, W, F / 2]
        return h.transpose(0, 1).flatten(1).index_select(0, back)


class NoChars(nn.Module):
    """No character encoder: words alone."""

    width = 0

    def layout(self, words: list[Ids]) -> tuple[Tensor, ...]:  # noqa: ARG002 - as the others'
        return ()

    def forward(self, *_: Tensor) -> Tensor:
        raise RuntimeError("there is no character encoder to ask")
