"""Stock's global attention over one source, a step at a time, without what each step need not do.

What depends on the source alone is computed once; weights and the source get their gradients once
all steps have run backward. Parameters are stock's module's.

Sources: Luong et al., 2015, section 3.1 (dot, general); Bahdanau et al., "Neural Machine
Translation by Jointly Learning to Align and Translate", 2015 (mlp).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from onmt.modules import GlobalAttention
from onmt.modules.sparse_activations import sparsemax
from onmt.utils.misc import sequence_mask
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.onmt.plain_linear import is_plain_linear
from opennmt_sd.onmt.sorted_targets import SortedTargets


class SourceAttention:
    """``attn(query, enc_out, src_len=src_len)`` for many queries, one after the other.

    Args:
        attn: stock's module.
        enc_out: ``[B, S, H]``.
        src_len: int64 ``[B]`` or None.
    """

    def __init__(self, attn: GlobalAttention, enc_out: Tensor, src_len: Tensor | None) -> None:
        self.kind = attn.attn_type
        self.dot_product = _is_dot_product(attn)
        self.out = _stepwise(attn.linear_out)
        if self.kind == "general":
            self.linear_in = _stepwise(attn.linear_in)
        if self.dot_product:
            # An encoder that gives fewer states than a source has words counts as whole.
            lengths = None if src_len is None else src_len.clamp(max=enc_out.shape[1])
            self.memory = ops.prepare_memory(enc_out, lengths)
            return
        self.enc_out, self.normalise = enc_out, _NORMALISE[attn.attn_func]
        self.padding = _padding(enc_out, src_len)
        if self.kind == "mlp":
            self.keys = attn.linear_context(enc_out)  # [B, S, H]
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
        scores = self._scores(projected)
        if self.padding is not None:
            scores = scores.masked_fill(self.padding[:n], -torch.inf)
        weights = self.normalise(scores, -1)
        return torch.bmm(weights.unsqueeze(1), self.enc_out[:n]).squeeze(1), weights

    def _scores(self, query: Tensor) -> Tensor:
        """Return the scores of a query ``[n, H]``, ``[n, S]``."""
        n = len(query)
        if self.kind != "mlp":
            return torch.bmm(self.enc_out[:n], query.unsqueeze(2)).squeeze(2)
        projected = self.linear_query(query)
        return self.v(torch.tanh(projected.unsqueeze(1) + self.keys[:n])).squeeze(2)


def attend_all(
    attn: GlobalAttention,
    targets: SortedTargets,
    rows: Tensor,
    enc_out: Tensor,
    src_len: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attend with all queries at once: ``attn(queries, enc_out, src_len=src_len)``.

    Args:
        attn: stock's module.
        targets: which rows are there.
        rows: the queries, packed ``[R, H]``.
        enc_out, src_len: as in :class:`SourceAttention`.

    Returns:
        The attended states, packed ``[R, H]``, and the weights ``[B, T, S]``.
    """
    sizes, projected = targets.sizes, rows
    linears = [attn.linear_out, *([attn.linear_in] if attn.attn_type == "general" else [])]
    if not _is_dot_product(attn) or not all(map(is_plain_linear, linears)):
        out, weights = attn(targets.unpack(rows), enc_out, src_len=src_len)
        return targets.pack(out), weights
    if attn.attn_type == "general":
        projected = ops.masked_linear(rows, None, attn.linear_in.weight, batch_sizes=sizes)
    scores = targets.unpack(projected) @ enc_out.transpose(1, 2)  # [B, T, S]
    padding = _padding(enc_out, src_len)
    if padding is not None:
        scores = scores.masked_fill(padding.unsqueeze(1), -torch.inf)
    weights = torch.softmax(scores, -1)
    both = torch.cat([targets.pack(weights @ enc_out), rows], 1)  # [R, 2 H]
    out = ops.masked_linear(both, None, attn.linear_out.weight, batch_sizes=sizes)
    return torch.tanh(out), weights


def _is_dot_product(attn: GlobalAttention) -> bool:
    return attn.attn_type != "mlp" and attn.attn_func == "softmax"


def _padding(enc_out: Tensor, src_len: Tensor | None) -> Tensor | None:
    """Return what is padding, bool ``[B, S]``, True past a source's end; None for no padding."""
    return None if src_len is None else sequence_mask(src_len, max_len=enc_out.shape[1])


def _stepwise(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """Make a layer one for step after step: if it is torch's own, with one gradient for all."""
    if not is_plain_linear(linear):
        return linear
    return functools.partial(ops.masked_linear_step, ops.prepare(linear.weight, linear.bias))


_NORMALISE = {"softmax": torch.softmax, "sparsemax": sparsemax}
