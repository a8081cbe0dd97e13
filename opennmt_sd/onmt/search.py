"""Search in which a sentence's translation does not depend on the batch that it is in.

Stock's searches, with what they take from the batch taken from the sentence:

- The bounds of a translation's length: stock takes them from the longest source, and from the
  longest and the shortest prefix.
- A source's length, where attention is cut and where ``ratio`` counts: stock keeps one length for
  each beam and reads the i-th for the i-th sentence.
- A coverage penalty: stock takes in the attention on padding, whose logarithm is infinite.
- The n-grams that may not be repeated: stock leaves them in the places from before the finished
  sentences went.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from onmt.translate import beam_search, greedy_search
from onmt.utils.misc import sequence_mask
from torch import Tensor

FORBIDDEN = -65504  # stock's score of what may not be: the lowest that float16 holds


class Score(float):
    """The score of a translation: a number, and a tensor where stock reads one."""

    def item(self) -> float:
        return float(self)


class Bounds:
    """Mixin for a search of stock's: each sentence has its own shortest and longest translation.

    An entry is what ``is_finished_list`` has one of: a sentence in beam search, a path in sampling.

    Attributes:
        longest, shortest: int for each sentence of the batch, in words, the end not counted.
            Where the first is not set before ``initialize``, ``max_length`` holds for all.
    """

    longest: list[int] | None = None
    shortest: list[int]

    def sentences(self) -> Tensor:
        """Return the sentence of each entry that goes on, int64."""
        raise NotImplementedError

    def initialize(
        self,
        enc_out: Any,
        src_len: Tensor,
        src_map: Tensor | None = None,
        device: torch.device | None = None,
        target_prefix: Tensor | None = None,
    ) -> Any:
        search: Any = self
        longest = search.longest or [search.max_length] * search.batch_size
        shortest = [search.min_length] * search.batch_size
        state = super().initialize(enc_out, src_len, src_map, device, target_prefix)  # type: ignore[misc]
        if target_prefix is not None:  # [B, T, 1], between a start and an end
            words = (target_prefix[:, 1:, 0].ne(search.pad).sum(1) - 1).tolist()
            longest, shortest = ([n + w for n, w in zip(ns, words)] for ns in (longest, shortest))
        search.longest, search.shortest = longest, shortest
        search.max_length = max(longest)
        return state

    def ensure_min_length(self, log_probs: Tensor) -> None:
        search: Any = self
        early = [len(search) <= search.shortest[b] for b in self.sentences().tolist()]
        if any(early):
            rows = torch.tensor(early, device=log_probs.device)
            log_probs[rows.repeat_interleave(len(log_probs) // len(early)), search.eos] = FORBIDDEN

    def ensure_max_length(self) -> None:
        search: Any = self
        search.is_finished_list = [
            [True] * len(finished) if len(search) > search.longest[b] else finished
            for b, finished in zip(self.sentences().tolist(), search.is_finished_list, strict=True)
        ]


class BeamSearch(Bounds, beam_search.BeamSearch):
    """Stock's beam search, of each sentence as if it were alone."""

    global_scorer: Any
    src_len: Tensor
    forbidden_tokens: list[dict[tuple[int, ...], set[int]]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scorer = copy.copy(self.global_scorer)
        scorer.cov_penalty = functools.partial(self._cov_penalty, scorer.cov_penalty)
        self.global_scorer = scorer

    def sentences(self) -> Tensor:
        return self._batch_offset

    def _cov_penalty(self, penalty: Any, cov: Tensor, beta: float = 0.0) -> Tensor:
        """Give stock's penalty of attention ``[N, 1, S]``, summed over steps, without padding.

        A word covered once costs nothing, by either penalty: so does padding. A word that got no
        attention at all has a penalty all the same (stock's is infinite).
        """
        padding = sequence_mask(self.src_len, cov.shape[-1]).unsqueeze(1)
        cov = cov.double().masked_fill(padding, 1.0)  # so that a sum does not depend on its zeros
        least = torch.finfo(torch.float32).tiny
        return penalty(cov.clamp(min=least), beta=beta)

    def beams_non_finished(self, *args: Any) -> bool:
        tiled, self.src_len = self.src_len, self.src_len[:: self.beam_size]
        try:
            return super().beams_non_finished(*args)
        finally:
            self.src_len = tiled

    def update_finished(self) -> None:
        before = {b: i for i, b in enumerate(self._batch_offset.tolist())}
        super().update_finished()
        if not self.done:
            firsts = (before[b] * self.beam_size for b in self._batch_offset.tolist())
            rows = [first + k for first in firsts for k in range(self.beam_size)]
            self.forbidden_tokens = [self.forbidden_tokens[row] for row in rows]


class GreedySearch(Bounds, greedy_search.GreedySearch):
    """Stock's sampling, of each sentence as if it were alone (but for what is drawn)."""

    keep_topk: int

    def sentences(self) -> Tensor:
        return self.original_batch_idx

    def _pick(self, log_probs: Tensor) -> Any:
        self.keep_topk = min(self.keep_topk, log_probs.shape[-1])  # of fewer words: all of them
        return super()._pick(log_probs)

    @property
    def batch_offset(self) -> Tensor:
        """Return the sentence of each path. (Stock gives the paths themselves.)"""
        return self.sentences()
