"""The loss of a projection onto the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.checks import refuse_second_derivatives
from opennmt_sd.ops.engine import Loss, Projection
from opennmt_sd.ops.portable.linear import masked_linear, sum_dtype

# So many logits at a time: read and written several times, they must stay in the cache.
CHUNK = 160_000


def projected_nll(projection: Projection, loss: Loss) -> tuple[Tensor, Tensor]:
    logits = masked_linear(projection).flatten(0, -2)  # [R, V]
    return _NLL.apply(logits, loss.targets.flatten(), loss.label_smoothing, loss.factor)


class _NLL(Function):
    """``factor * sum(NLL)``, and the hits; consumes its logits: they become their own gradient,
    softmax minus one-hot, as soon as they are there."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, smoothing: float, factor: float
    ) -> tuple[Tensor, Tensor]:
        wants_grad = ctx.needs_input_grad[0]
        # In half precision the small factor of a mean would drown softmax in zeros: it waits for
        # the gradient that comes in, which a scaler has made large.
        ctx.later = factor if logits.dtype == torch.float16 else 1.0
        now = factor / ctx.later if wants_grad else None
        nll = logits.new_empty(len(logits), dtype=sum_dtype(logits))
        hits = torch.zeros_like(targets, dtype=torch.bool)
        rows = max(CHUNK // max(logits.shape[1], 1), 1)
        for begin in range(0, len(logits), rows):
            part = slice(begin, begin + rows)
            _nll_(logits[part], targets[part], nll[part], hits[part], smoothing, now)
        if wants_grad:
            ctx.save_for_backward(logits)
        correct = hits.sum()
        ctx.mark_non_differentiable(correct)
        return nll.sum() * factor, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        refuse_second_derivatives("portable", grad)
        (d_logits,) = ctx.saved_tensors
        return d_logits * (grad * ctx.later).to(d_logits.dtype), None, None, None


def _nll_(
    logits: Tensor, targets: Tensor, nll: Tensor, hits: Tensor, smoothing: float,
    factor: float | None,
) -> None:  # fmt: skip
    """Compute NLL and hits of a few rows; logits become ``factor`` times the gradient, or waste."""
    x = logits.to(nll.dtype)  # itself, but for half precision
    V, target = x.shape[1], targets[:, None]
    torch.eq(x.argmax(1), targets, out=hits)
    top = x.amax(1, keepdim=True)
    away = top - x.gather(1, target)  # of the target from the largest logit
    x.sub_(top)
    if smoothing:
        away = (1 - smoothing) * away - smoothing * x.mean(1, keepdim=True)
    x.exp_()
    total = x.sum(1, keepdim=True)
    torch.add(total.log(), away, out=nll[:, None])
    if factor is not None:
        x.mul_(factor / total)
        if smoothing:
            x.sub_(factor * smoothing / V)
        x.scatter_add_(1, target, x.new_full((), -factor * (1 - smoothing)).expand_as(target))
        if x is not logits:
            logits.copy_(x)
