"""The likelihood of tags in a linear chain, and its gradients, for a batch of sentences at once.

Sums over all sequences go over the steps once, from both ends together, as products of
probabilities that are scaled now and then; no graph is recorded on the way.

Axis names: R words of a batch (packed, ``sizes [T]`` as in a ``PackedSequence``), B sentences, K
tags.

Source: Rabiner 1989, "A Tutorial on Hidden Markov Models", section V.A; Lafferty et al. 2001.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

SCALED = 8  # steps from one scaling to the next
LEAST = 1e-200  # of a sum in between: below it, terms of a double would be lost beside others


class Chain(NamedTuple):
    """What sequences of tags are scored by.

    Args:
        rows: of each word's tags, ``[R, K]``.
        start, end: of the first and of the last tag, ``[K]``.
        moves: from a tag (first axis) to the next one, ``[K, K]``.
    """

    rows: Tensor
    start: Tensor
    end: Tensor
    moves: Tensor


class Places(NamedTuple):
    """Where the words of sentences lie among packed rows.

    Args:
        mirrored: int64 ``[R]``: for each word the one as far from the other end of its sentence.
        last: int64 ``[B]``: of each sentence; the first ones are the first B.
        before: int64 ``[R - B]``: for each later word the one before it.
    """

    mirrored: Tensor
    last: Tensor
    before: Tensor

    @classmethod
    def of(cls, sizes: Tensor) -> Places:
        count = partial(torch.arange, device=sizes.device)
        B, begins = int(sizes[0]), sizes.cumsum(0) - sizes
        step = count(len(sizes)).repeat_interleave(sizes)  # [R]
        sentence = count(len(step)) - begins[step]
        length = (sizes.unsqueeze(1) > count(B)).sum(0)  # [B]
        mirrored = begins[length[sentence] - 1 - step] + sentence
        return cls(mirrored, mirrored[:B], begins[step[B:] - 1] + sentence[B:])


def nll(chain: Chain, tags: Tensor, sizes: Tensor, by_graph: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the negative log-likelihood of ``tags [R]`` in nats, summed over sentences.

    Args:
        chain: on the CPU.
        by_graph: gives the same of the rows by torch's ops: where a score is infinite, or hundreds
            of nats from others, and for second derivatives.
    """
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        places, wide = Places.of(sizes), Chain(*(x.detach().double() for x in chain))
        total, grads = _all_sequences(wide, sizes.tolist(), places)
        loss = total - _one_sequence(wide, tags, places)
        holds = math.isfinite(loss + sum(x.sum() for x in grads))
        _take_off(grads, tags, places)
    if not holds:
        return by_graph(chain.rows)
    return _Known.apply(chain.rows, chain.start, chain.end, chain.moves, loss, grads, by_graph)


class _Known(Function):
    """A loss whose gradients are there already."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, start: Tensor, end: Tensor, moves: Tensor, loss: Tensor,
        grads: Chain, by_graph: Callable[[Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        given = rows, start, end, moves
        ctx.save_for_backward(*given, *(grad.to(x.dtype) for grad, x in zip(grads, given)))
        ctx.by_graph = by_graph
        return loss.to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> Any:
        given, grads = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        if not torch.is_grad_enabled():
            return *(d_loss * grad for grad in grads), *[None] * 3
        wanted = ctx.needs_input_grad[:4]  # to be differentiated in turn: create_graph
        of = [x for x, want in zip(given, wanted) if want]
        found = iter(torch.autograd.grad(ctx.by_graph(given[0]), of, d_loss, create_graph=True))
        return *(next(found) if want else None for want in wanted), *[None] * 3


def _all_sequences(chain: Chain, sizes: list[int], places: Places) -> tuple[Tensor, Chain]:
    """Return the logarithm of the sum over all sequences, added up over sentences, and its
    gradients: how often each tag and each move is expected."""
    (R, K), B = chain.rows.shape, sizes[0]
    row_peaks = chain.rows.amax(1, keepdim=True)
    peaks = [x.max() for x in chain[1:]]
    start, end, moves = ((x - peak).exp() for x, peak in zip(chain[1:], peaks))
    words = (chain.rows - row_peaks).exp()  # [R, K]

    # Beside each word its mirror image: sums from the start and, in the same way, from the end.
    words = torch.cat([words, words.index_select(0, places.mirrored)], 1)  # [R, 2K]
    ahead, sums = torch.empty_like(words), torch.empty_like(words)  # without the word, and with it
    step, logs = torch.block_diag(moves, moves.t()), []
    last = words[:0]
    for t, (word, before, now) in enumerate(zip(*(x.split(sizes) for x in (words, ahead, sums)))):
        if t:
            torch.mm(last[: len(word)], step, out=before)
        else:
            before.copy_(torch.cat([start, end]))
        torch.mul(before, word, out=now)
        last = now
        if t % SCALED == 0:
            both = now.view(-1, 2, K)
            scale = both.amax(2, keepdim=True)
            both /= scale
            logs.append(scale[:, 0].log().sum())

    ends = (sums[:, :K].index_select(0, places.last) @ end).log().sum()
    total = ends + sum(logs) + row_peaks.sum() + B * (peaks[0] + peaks[1]) + (R - B) * peaks[2]
    sums = sums.view(R, 2, K)
    largest = sums.amax(2, keepdim=True)
    largest = torch.where(largest < LEAST, math.nan, largest)  # digits are lost
    begun, ended = (sums / largest).unbind(1)
    of_words = begun * ahead[:, K:].index_select(0, places.mirrored)
    of_words /= of_words.sum(1, keepdim=True)
    earlier, later = (
        begun.index_select(0, places.before),
        ended.index_select(0, places.mirrored[B:]),
    )
    earlier /= (earlier @ moves * later).sum(1, keepdim=True)
    of_ends = of_words.index_select(0, places.last).sum(0)
    return total, Chain(of_words, of_words[:B].sum(0), of_ends, earlier.t() @ later * moves)


def _one_sequence(chain: Chain, tags: Tensor, places: Places) -> Tensor:
    """Return the score of given tags, added up over sentences."""
    B = len(places.last)
    return (
        chain.rows.gather(1, tags.unsqueeze(1)).sum()
        + chain.start[tags[:B]].sum()
        + chain.end[tags[places.last]].sum()
        + chain.moves[tags[places.before], tags[B:]].sum()
    )


def _take_off(grads: Chain, tags: Tensor, places: Places) -> None:
    """Take off how often given tags and moves occur."""
    B, K = len(places.last), grads.start.shape[0]
    grads.rows.scatter_add_(1, tags.unsqueeze(1), -torch.ones_like(grads.rows[:, :1]))
    for grad, seen in (
        (grads.start, tags[:B]),
        (grads.end, tags[places.last]),
        (grads.moves.view(-1), tags[places.before] * K + tags[B:]),
    ):
        grad.sub_(seen.bincount(minlength=grad.numel()))
