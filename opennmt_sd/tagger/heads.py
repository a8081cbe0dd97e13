"""What makes tags of scores: a linear-chain CRF, or a softmax over each word.

Rows are packed: ``[R, K]`` scores of K tags, with ``sizes [T]`` as in a ``PackedSequence``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.compat import in_transform
from opennmt_sd.dropout.apply import sent
from opennmt_sd.extras import extra
from opennmt_sd.tagger import chain
from opennmt_sd.tagger.chain import Chain
from opennmt_sd.tagger.compat import log_partition

with extra("tagger"):
    import torchcrf  # type: ignore[import-untyped]  # it ships no types

HEADS = ("crf", "softmax")


class Head(Protocol):
    def nll(self, rows: Tensor, tags: Tensor, sizes: Tensor) -> Tensor:
        """Return the negative log-likelihood of ``tags [R]`` in nats, summed over sentences."""
        ...

    def decode(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Return the best tags, ``[R]``."""
        ...


class SoftmaxHead(nn.Module):
    """Each word for itself."""

    def nll(self, rows: Tensor, tags: Tensor, sizes: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(rows, tags, reduction="sum")

    def decode(self, rows: Tensor, sizes: Tensor) -> Tensor:  # noqa: ARG002
        return rows.argmax(1)


class CRFHead(torchcrf.CRF):
    """pytorch-crf's ``CRF`` on packed rows, what is slow in it done by whole batches.

    Parameters are the library's. On a CPU the loss comes with its gradients (:mod:`.chain`); on a
    GPU, and where gradients are differentiated, the library's partition function goes word by word.
    Scoring given tags and following the Viterbi trace back are ours, with the same results (the
    tests compare).

    Args:
        tags: K.

    Source: Lafferty et al. 2001; Lample et al. 2016, section 2.2.
    """

    def __init__(self, tags: int) -> None:
        super().__init__(tags)

    def nll(self, rows: Tensor, tags: Tensor, sizes: Tensor) -> Tensor:
        rows = _wide(rows)
        by_graph = partial(self._nll_by_graph, tags=tags, sizes=sizes)
        if not rows.is_cpu or in_transform() or ops.forced() == "naive":
            return by_graph(rows)
        given = Chain(rows, self.start_transitions, self.end_transitions, self.transitions)
        return chain.nll(given, tags, sizes, by_graph)

    def _nll_by_graph(self, rows: Tensor, tags: Tensor, sizes: Tensor) -> Tensor:
        words = _alive(sizes)
        places, alive = sent(_places(words), rows.device), sent(words, rows.device)
        scores = _padded(rows, places, words.shape)  # [T, B, K]
        given = self.score(scores, _padded(tags, places, words.shape), alive)
        return -(given - log_partition(self, scores, alive)).sum()

    def decode(self, rows: Tensor, sizes: Tensor) -> Tensor:
        words = _alive(sizes)
        places, alive = sent(_places(words), rows.device), sent(words, rows.device)
        scores = _padded(_wide(rows), places, words.shape)
        return self.best(scores, alive).flatten().index_select(0, places)

    def score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Return the score ``[B]`` of given tags ``[T, B]``."""
        score = self.start_transitions[tags[0]]
        of_tags = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)  # [T, B]
        score = score + torch.where(mask, of_tags, 0.0).sum(0)
        moves = self.transitions[tags[:-1], tags[1:]]  # [T - 1, B]
        score = score + torch.where(mask[1:], moves, 0.0).sum(0)
        last = mask.sum(0, keepdim=True) - 1  # [1, B]
        return score + self.end_transitions[tags.gather(0, last).squeeze(0)]

    def best(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best tags, ``[T, B]`` (anything where a sentence has ended)."""
        score = self.start_transitions + emissions[0]  # [B, K]
        history = []
        stay = torch.arange(score.shape[1], device=score.device).expand_as(score)
        for scores, alive in zip(emissions[1:], mask[1:].unsqueeze(2)):
            best, before = (score.unsqueeze(2) + self.transitions).max(1)
            score = torch.where(alive, best + scores, score)
            history.append(torch.where(alive, before, stay))
        tag = (score + self.end_transitions).argmax(1, keepdim=True)  # [B, 1]
        path = [tag]
        for before in reversed(history):
            tag = before.gather(1, tag)
            path.append(tag)
        return torch.cat(path[::-1], 1).t()


def head(kind: str, tags: int) -> Any:
    """Make the head of a kind of :data:`HEADS` for so many tags."""
    return CRFHead(tags) if kind == "crf" else SoftmaxHead()


def _wide(rows: Tensor) -> Tensor:
    """Return scores in at least float32: sums over paths need more than half precision."""
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _alive(sizes: Tensor) -> Tensor:
    """Return whether sentence b has a t-th word: bool ``[T, B]``."""
    return torch.arange(int(sizes[0]), device=sizes.device) < sizes.unsqueeze(1)


def _places(alive: Tensor) -> Tensor:
    """Return where each row is among the ``[T, B]``: int64 ``[R]``."""
    return alive.flatten().nonzero().squeeze(1)


def _padded(rows: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Fill gaps: ``[R, ..]`` to ``[T, B, ..]``, both ordered by step."""
    if rows.shape[0] == shape.numel():
        return rows.unflatten(0, shape)
    padded = rows.new_zeros(shape.numel(), *rows.shape[1:])
    return padded.index_copy_(0, places, rows).unflatten(0, shape)
