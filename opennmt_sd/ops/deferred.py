"""Gradients that the steps of a loop make once, together.

A handle gives every step its token, so that the token's backward runs once theirs have; each step's
backward leaves there what the one gradient needs. A token has no gradient: autograd waits for the
steps all the same, and nothing is added up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.compat import after_backward_pass, backward_pass
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.autocast import not_lowered, off
from opennmt_sd.ops.checks import refuse_second_derivatives

Left = TypeVar("Left")


class Steps(Generic[Left]):
    """What steps left in backward, by the pass and the number of the step.

    Several passes may be under way: in threads, or one within another (reentrant checkpointing, a
    hook that calls backward). Each makes the gradient of its own steps.
    """

    def __init__(self) -> None:
        self._count = 0  # of the steps that ran forward
        self._left: dict[int, dict[int, Left]] = {}

    def number(self) -> int:
        """Return the number of a new step."""
        self._count += 1
        return self._count

    def leave(self, step: int, left: Left) -> None:
        """Keep what a step's backward leaves, until its pass is over."""
        now = backward_pass()
        if now not in self._left:
            self._left[now] = {}
            after_backward_pass(partial(self._left.pop, now, None))
        self._left[now][step] = left

    def take(self) -> list[Left]:
        """Return what the steps left in this pass, in the order in which they ran forward."""
        left = self._left.pop(backward_pass(), {})
        return [left[step] for step in sorted(left)]


class _Token(Function):
    @staticmethod
    def forward(
        ctx: Any, engine: str, gradients: Callable[[], tuple[Tensor | None, ...]], *sources: Tensor
    ) -> Tensor:
        ctx.engine, ctx.gradients, ctx.device = engine, gradients, sources[0].device.type
        ctx.set_materialize_grads(False)
        return sources[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: None) -> Any:
        refuse_second_derivatives(ctx.engine)
        with off(ctx.device):
            needed = zip(ctx.gradients(), ctx.needs_input_grad[2:])
        return None, None, *[gradient if need else None for gradient, need in needed]


# ---------------------------------------------------------------- a linear layer


class LinearStep(NamedTuple):
    """What a step of a linear layer leaves for the gradient of the weight."""

    x: Tensor
    dy: Tensor
    keep: Keep | None
    t: int


class LinearKernels(Protocol):
    """An engine's phases of a linear layer, on a prepared weight."""

    engine: str
    read: tuple[Tensor, ...]
    """What backward reads of the caller's: changed in place before, it is refused."""

    def fp(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        """Return y ``[n, N]``."""

    def bp(self, dy: Tensor, keep: Keep | None, t: int) -> Tensor:
        """Return dx ``[n, D]``."""

    def wg(self, steps: list[LinearStep]) -> tuple[Tensor, Tensor | None]:
        """Return dw ``[N, D]`` and db ``[N]`` (None where there is no bias), over all these
        steps."""


class DeferredLinear:
    """A weight ``[N, D]`` and a bias ``[N]`` for one forward and backward pass, step by step."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kernels: LinearKernels) -> None:
        self._kernels, self._steps = kernels, Steps[LinearStep]()
        steps = self._steps  # a token that knew the handle would keep itself alive
        sources = (weight,) if bias is None else (weight, bias)
        self._token = _Token.apply(
            kernels.engine, lambda: kernels.wg(steps.take())[: len(sources)], *sources
        )

    def step(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        keep = None if keep is None else keep.to(x.device)
        return _LinearStep.apply(x, self._token, self._kernels, self._steps, keep, t)


class _LinearStep(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, kernels: LinearKernels,  # noqa: ARG004 - token orders
        steps: Steps[LinearStep], keep: Keep | None, t: int,
    ) -> Tensor:  # fmt: skip
        ctx.kernels, ctx.steps, ctx.keep, ctx.t = kernels, steps, keep, t
        if ctx.needs_input_grad[1]:
            ctx.number = steps.number()
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, *kernels.read)
        return kernels.fp(x, keep, t)

    @staticmethod
    @not_lowered
    def backward(ctx: Any, dy: Tensor) -> Any:
        refuse_second_derivatives(ctx.kernels.engine, dy)
        dx = None
        x, *_ = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            # x with its graph would be a cycle
            left = LinearStep(x=x.detach(), dy=dy, keep=ctx.keep, t=ctx.t)
            ctx.steps.leave(ctx.number, left)
        if ctx.needs_input_grad[0]:
            dx = ctx.kernels.bp(dy, ctx.keep, ctx.t)
        return dx, None, None, None, None, None


# ---------------------------------------------------------------- attention over a memory


class AttentionStep(NamedTuple):
    """What a step of attention leaves for the gradient of the memory."""

    weights: Tensor
    d_scores: Tensor
    d_context: Tensor
    query: Tensor


class AttentionKernels(Protocol):
    """An engine's phases of attention."""

    engine: str

    def fp(self, memory: Tensor, lengths: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context ``[n, D]`` and the weights ``[n, S]``."""

    def bp(
        self, memory: Tensor, lengths: Tensor | None, weights: Tensor, d_context: Tensor,
        d_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return d_scores ``[n, S]`` and d_query ``[n, D]``."""


class DeferredAttention:
    """A memory ``[B, S, D]`` for one forward and backward pass, read step by step.

    Each step reads the whole memory; none writes a gradient of its size. What the steps add to the
    memory's gradient is two products over all of them:

        d_memory = sum over t of weights_t (x) d_context_t + d_scores_t (x) query_t

    Args:
        memory: ``[B, S, D]``.
        lengths: ``[B]``, or None: all of it counts.
        kernels: an engine's.

    Source: Luong et al., "Effective Approaches to Attention-based Neural Machine Translation",
    2015, section 3.1.
    """

    def __init__(self, memory: Tensor, lengths: Tensor | None, kernels: AttentionKernels) -> None:
        self._memory, self._lengths, self._kernels = memory.detach(), lengths, kernels
        self._steps = Steps[AttentionStep]()
        steps, B = self._steps, len(memory)
        self._token = _Token.apply(
            kernels.engine, lambda: (_memory_gradient(steps.take(), B),), memory
        )

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        n = len(query)  # the first n memories: those of the sequences that go on
        memory, lengths = self._memory[:n], None if self._lengths is None else self._lengths[:n]
        return _AttentionStep.apply(query, self._token, memory, lengths, self._kernels, self._steps)


def _memory_gradient(steps: list[AttentionStep], B: int) -> Tensor:
    """Return d_memory ``[B, S, D]`` of all these steps."""
    lefts = [step.weights for step in steps] + [step.d_scores for step in steps]
    rights = [step.d_context for step in steps] + [step.query for step in steps]
    left = torch.stack([_whole(x, B) for x in lefts], 2)  # [B, S, 2 T]
    return left @ torch.stack([_whole(x, B) for x in rights], 1)  # [B, 2 T, D]


def _whole(rows: Tensor, B: int) -> Tensor:
    """Return ``[n, .]`` with zeros for the B - n whose sequences have ended."""
    return F.pad(rows, (0, 0, 0, B - len(rows))) if len(rows) < B else rows


class _AttentionStep(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, token: Tensor, memory: Tensor, lengths: Tensor | None,  # noqa: ARG004 - token orders
        kernels: AttentionKernels, steps: Steps[AttentionStep],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        context, weights = kernels.fp(memory, lengths, query)
        ctx.lengths, ctx.kernels, ctx.steps = lengths, kernels, steps
        if ctx.needs_input_grad[1]:
            ctx.number = steps.number()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, weights, memory)  # torch sees whether memory has changed
        return context, weights

    @staticmethod
    @not_lowered
    def backward(ctx: Any, d_context: Tensor | None, d_weights: Tensor | None) -> Any:
        refuse_second_derivatives(ctx.kernels.engine, d_context, d_weights)
        query, weights, memory = ctx.saved_tensors
        if d_context is None:
            d_context = torch.zeros_like(query)
        d_scores, d_query = ctx.kernels.bp(
            memory, ctx.lengths, weights.detach(), d_context, d_weights
        )
        if ctx.needs_input_grad[1]:
            left = AttentionStep(
                weights=weights.detach(), d_scores=d_scores, d_context=d_context,
                query=query.detach(),
            )  # fmt: skip
            ctx.steps.leave(ctx.number, left)
        return d_query if ctx.needs_input_grad[0] else None, None, None, None, None, None
