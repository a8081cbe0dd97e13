"""A toolkit's global attention over one source, a step at a time, without what each step need not
do; or with all queries at once.

What depends on the source alone is computed once; weights and the source get their gradients once
all steps have run backward. Parameters are those of the toolkit's module: OpenNMT-py's
``GlobalAttention`` and Eole's have the same ones.

Sources: Luong et al., 2015, section 3.1 (dot, general); Bahdanau et al., "Neural Machine
Translation by Jointly Learning to Align and Translate", 2015 (mlp).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.seq2seq.plain_linear import is_plain_linear
from opennmt_sd.seq2seq.sorted_targets import SortedTargets


@dataclass(frozen=True, eq=False)
class Source:
    """Hold what attention reads.

    Args:
        states: the encoder's, ``[B, S, H]``.
        padding: bool ``[B, S]``, True where there is no word; None where there is one everywhere.
        lengths: int64 ``[B]``, each at least 1, where padding is what lies past them; None where
            there is no padding, or some before or between words.
        sparsemax: the toolkit's, where it has attention with it.
    """

    states: Tensor
    padding: Tensor | None
    lengths: Tensor | None
    sparsemax: Callable[[Tensor, int], Tensor] | None = None

    def sorted(self, targets: SortedTargets) -> Source:
        """Return this with its samples in the order of the targets."""
        return Source(
            targets.sort(self.states),
            None if self.padding is None else targets.sort(self.padding),
            None if self.lengths is None else targets.sort(self.lengths),
            self.sparsemax,
        )

    def masked(self, scores: Tensor) -> Tensor:
        """Return scores, ``[n, S]`` or ``[B, T, S]``, that padding cannot win."""
        if self.padding is None:
            return scores
        padding = self.padding[: len(scores)]
        return scores.masked_fill(padding if scores.dim() == 2 else padding[:, None], -torch.inf)


class SourceAttention:
    """Attend by a toolkit's layer for many queries, one after the other.

    Args:
        attn: its module.
        source: what it reads, its samples in the order of the queries.
    """

    def __init__(self, attn: Any, source: Source) -> None:
        self.kind = attn.attn_type
        self.out = _stepwise(attn.linear_out)
        if self.kind == "general":
            self.linear_in = _stepwise(attn.linear_in)
        # Where padding lies elsewhere than at an end, the op for one step cannot leave it out.
        at_end = source.padding is None or source.lengths is not None
        self.dot_product = _is_dot_product(attn) and at_end
        if self.dot_product:
            self.memory = ops.prepare_memory(source.states, source.lengths)
            return
        self.source = source
        self.normalise: Callable[[Tensor, int], Tensor] = torch.softmax
        if attn.attn_func == "sparsemax" and source.sparsemax is not None:
            self.normalise = source.sparsemax
        if self.kind == "mlp":
            self.keys = attn.linear_context(source.states)  # [B, S, H]
            self.linear_query = _stepwise(attn.linear_query)
            self.v = attn.v

    def __call__(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended state ``[n, H]`` and the weights ``[n, S]`` of a query ``[n, H]``,
        that of the first n sources."""
        context, weights = self.read(query)
        attended = self.out(torch.cat([context, query], 1))
        return (attended if self.kind == "mlp" else torch.tanh(attended)), weights

    def read(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a query ``[n, H]`` reads of the first n sources, ``[n, H]``, and its weights
        ``[n, S]``."""
        n, projected = len(query), query
        if self.kind == "general":
            projected = self.linear_in(query)
        if self.dot_product:
            return ops.attend_step(self.memory, projected)
        weights = self.normalise(self.source.masked(self._scores(projected)), -1)
        return torch.bmm(weights.unsqueeze(1), self.source.states[:n]).squeeze(1), weights

    def _scores(self, query: Tensor) -> Tensor:
        """Return the scores of a query ``[n, H]``, ``[n, S]``."""
        n = len(query)
        if self.kind != "mlp":
            return torch.bmm(self.source.states[:n], query.unsqueeze(2)).squeeze(2)
        projected = self.linear_query(query)
        return self.v(torch.tanh(projected.unsqueeze(1) + self.keys[:n])).squeeze(2)


def attend_all(
    attn: Any,
    targets: SortedTargets,
    rows: Tensor,
    source: Source,
    whole: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Attend with all queries at once.

    Args:
        attn: a toolkit's module.
        targets: which rows are there.
        rows: the queries, packed ``[R, H]``.
        source: what is read, its samples in the batch's own order.
        whole: calls the module itself, with ``[B, T, H]``, where it cannot be left out.

    Returns:
        The attended states, packed ``[R, H]``, and the weights ``[B, T, S]``.
    """
    sizes, projected = targets.sizes, rows
    linears = [attn.linear_out, *([attn.linear_in] if attn.attn_type == "general" else [])]
    if not _is_dot_product(attn) or not all(map(is_plain_linear, linears)):
        out, weights = whole(targets.unpack(rows))
        return targets.pack(out), weights
    if attn.attn_type == "general":
        projected = ops.masked_linear(rows, None, attn.linear_in.weight, batch_sizes=sizes)
    scores = source.masked(targets.unpack(projected) @ source.states.transpose(1, 2))  # [B, T, S]
    weights = torch.softmax(scores, -1)
    both = torch.cat([targets.pack(weights @ source.states), rows], 1)  # [R, 2 H]
    out = ops.masked_linear(both, None, attn.linear_out.weight, batch_sizes=sizes)
    return torch.tanh(out), weights


def _is_dot_product(attn: Any) -> bool:
    return attn.attn_type != "mlp" and attn.attn_func == "softmax"


def _stepwise(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """Make a layer one for step after step: if it is torch's own, with one gradient for all."""
    if not is_plain_linear(linear):
        return linear
    return functools.partial(ops.masked_linear_step, ops.prepare(linear.weight, linear.bias))
