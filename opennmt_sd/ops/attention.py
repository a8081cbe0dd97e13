"""Attention over one memory, a step at a time: dot products, softmax, weighted sum.

Each step reads the whole memory; none writes a gradient of its size. What the steps add to the
memory's gradient is two products over all of them, made once they have run backward:

    d_memory = sum over t of weights_t (x) d_context_t + d_scores_t (x) query_t

Source: Luong et al., "Effective Approaches to Attention-based Neural Machine Translation", 2015,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.stash import Stash

Forward = Callable[[Tensor, "Tensor | None", Tensor], tuple[Tensor, Tensor]]
Backward = Callable[
    [Tensor, "Tensor | None", Tensor, Tensor, "Tensor | None"], tuple[Tensor, Tensor]
]


def attend_fp(memory: Tensor, lengths: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
    """One step in plain torch: the context ``[B, D]`` and the weights ``[B, S]``.

    Args:
        memory: ``[B, S, D]``.
        lengths: ``[B]``, or None: all of it counts.
        query: ``[B, D]``.
    """
    scores = torch.bmm(memory, query.unsqueeze(2)).squeeze(2)  # [B, S]
    if lengths is not None:
        steps = torch.arange(memory.shape[1], device=memory.device)
        scores = scores.masked_fill(steps >= lengths[:, None], -torch.inf)
    weights = torch.softmax(scores, 1)
    return torch.bmm(weights.unsqueeze(1), memory).squeeze(1), weights


def attend_bp(
    memory: Tensor,
    lengths: Tensor | None,  # noqa: ARG001 - past them, weights are zero
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """d_scores ``[B, S]`` and d_query ``[B, D]``, in plain torch."""
    d = torch.bmm(memory, d_context.unsqueeze(2)).squeeze(2)  # [B, S]
    if d_weights is not None:
        d = d + d_weights
    d_scores = weights * (d - (weights * d).sum(1, keepdim=True))
    return d_scores, torch.bmm(d_scores.unsqueeze(1), memory).squeeze(1)


def first(memory: Tensor, lengths: Tensor | None, n: int) -> tuple[Tensor, Tensor | None]:
    """The first n memories, and their lengths: those of the sequences that go on."""
    return memory[:n], None if lengths is None else lengths[:n]


class PreparedMemory:
    """A memory for one forward and backward pass, read step by step.

    Args:
        memory: ``[B, S, D]``.
        lengths: ``[B]``, or None: all of it counts.
        fp, bp: an engine's :func:`attend_fp` and :func:`attend_bp`.
    """

    def __init__(self, memory: Tensor, lengths: Tensor | None, fp: Forward, bp: Backward) -> None:
        self.steps = _Steps(memory.detach(), lengths, fp, bp)
        self.token = _DeferredMemoryGrad.apply(memory, self.steps)

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The context ``[n, D]`` and the weights ``[n, S]`` of a query ``[n, D]``."""
        return _Attend.apply(query, self.token, self.steps)


class _Steps:
    """What the steps leave behind for the one gradient of the memory."""

    def __init__(self, memory: Tensor, lengths: Tensor | None, fp: Forward, bp: Backward) -> None:
        self.memory, self.lengths, self.fp, self.bp = memory, lengths, fp, bp
        self.count = 0  # of the steps that ran forward
        self.ran = Stash[tuple[Tensor, ...]]()  # weights, d_scores, d_context, query

    def memory_grad(self) -> Tensor:
        """Over all steps that ran backward in this pass, ``[B, S, D]``."""
        weights, d_scores, d_context, query = zip(*(given for _, given in self.ran.take()))
        B = len(self.memory)
        left = torch.stack([_whole(x, B) for x in (*weights, *d_scores)], 2)  # [B, S, 2 T]
        return left @ torch.stack([_whole(x, B) for x in (*d_context, *query)], 1)  # [B, 2 T, D]


def _whole(rows: Tensor, B: int) -> Tensor:
    """``[n, .]`` with zeros for the B - n whose sequences have ended."""
    return F.pad(rows, (0, 0, 0, B - len(rows))) if len(rows) < B else rows


class _DeferredMemoryGrad(Function):
    """A token that every step takes, so that this backward runs once theirs have."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, steps: _Steps) -> Tensor:
        ctx.steps = steps
        ctx.save_for_backward(memory)  # every step reads it again: torch sees whether it changed
        return memory.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        _refuse_double_backward()
        _ = ctx.saved_tensors  # raises where memory was changed in place
        return ctx.steps.memory_grad(), None


class _Attend(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, token: Tensor, steps: _Steps  # noqa: ARG004 - orders backward
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        context, weights = steps.fp(*first(steps.memory, steps.lengths, len(query)), query)
        ctx.steps = steps
        if ctx.needs_input_grad[1]:
            ctx.step = steps.count
            steps.count += 1
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, weights)
        return context, weights

    @staticmethod
    def backward(ctx: Any, d_context: Tensor | None, d_weights: Tensor | None) -> Any:
        _refuse_double_backward()
        query, weights = ctx.saved_tensors
        steps, token = ctx.steps, None
        if d_context is None:
            d_context = torch.zeros_like(query)
        memory, lengths = first(steps.memory, steps.lengths, len(query))
        d_scores, d_query = steps.bp(memory, lengths, weights.detach(), d_context, d_weights)
        if ctx.needs_input_grad[1]:
            given = weights.detach(), d_scores, d_context, query.detach()
            steps.ran.put(ctx.step, given)
            token = query.new_zeros(())
        return d_query if ctx.needs_input_grad[0] else None, token, None


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) is not supported by this attention: run the "
            "forward pass under opennmt_sd.ops.use('naive'), which supports it"
        )
