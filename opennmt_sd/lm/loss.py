"""Projection and negative log-likelihood in one: a single ``[T*B, V]`` buffer from end to end.

``F.linear`` and ``F.cross_entropy`` hold two such buffers at the end of the forward pass (logits,
log-probabilities) and up to three in the backward pass (log-probabilities, their gradient, the
logits' gradient). Here the logits are overwritten with their own gradient, softmax minus one-hot,
as soon as they are there. Nobody else may see a buffer that is consumed like this, so the
projection belongs to the function.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.eager import eager

# So many logits at a time: read and written several times, they must stay in the cache.
CHUNK = 160_000


@eager
def projected_nll(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    factor: float | None = None,
) -> Tensor:
    """The negative log-likelihood of the targets under ``softmax(dropped(x) @ weight.T + bias)``.

    Args:
        x: ``[T, B, D]``, raw: dropped entries are never read.
        keep: what is kept of x (:meth:`DropoutPattern.draw`); None keeps everything.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        targets: int64 ``[T, B]``, each in [0, V).
        factor: what the sum over all targets is multiplied by. Default 1 / (T * B), the mean.

    Returns:
        A scalar, in float32 where x is float32 or lower. In nats, times ``factor``.

    Raises:
        ValueError: targets of another shape or kind. RuntimeError: double backward outside the
            naive engine. IndexError or RuntimeError (torch's own): a target outside [0, V).
    """
    if targets.shape != x.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets must be int64 {list(x.shape[:-1])}, one for each row of x; got "
            f"{targets.dtype} {list(targets.shape)}"
        )
    if factor is None:
        factor = 1 / max(targets.numel(), 1)
    if keep is None and ops.forced() is None:
        logits = F.linear(x, weight, bias)
    else:
        logits = ops.masked_linear(x, keep, weight, bias)
    logits, targets = logits.flatten(0, -2), targets.flatten()  # [R, V], [R]
    if ops.forced() == "naive":
        return F.cross_entropy(logits.to(_exact(logits.dtype)), targets, reduction="sum") * factor
    return _NLL.apply(logits, targets, factor)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """What sums are taken in."""
    return dtype if dtype == torch.float64 else torch.float32


class _NLL(Function):
    """``factor * sum(NLL)``; consumes its logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, factor: float) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        # In half precision the small factor of a mean would drown softmax in zeros: it waits for
        # the gradient that comes in, which a scaler has made large.
        ctx.later = factor if logits.dtype == torch.float16 else 1.0
        now = factor / ctx.later
        nll = logits.new_empty(len(logits), dtype=_exact(logits.dtype))
        rows = max(CHUNK // max(logits.shape[1], 1), 1)
        for begin in range(0, len(logits), rows):
            part = slice(begin, begin + rows)
            _nll_(logits[part], targets[part], nll[part], now if wants_grad else None)
        if wants_grad:
            ctx.save_for_backward(logits)
        return nll.sum() * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "double backward (create_graph=True) is not supported by this loss: run the "
                "forward pass under opennmt_sd.ops.use('naive'), which supports it"
            )
        (d_logits,) = ctx.saved_tensors
        if grad.device.type == "cpu" and ctx.later == 1 and grad == 1:
            return d_logits, None, None
        return d_logits * (grad * ctx.later).to(d_logits.dtype), None, None


def _nll_(logits: Tensor, targets: Tensor, nll: Tensor, factor: float | None) -> None:
    """NLL of a few rows into ``nll``; logits become ``factor * (softmax - one-hot)``, or waste."""
    x = logits.to(nll.dtype)  # itself, but for half precision
    target = targets[:, None]
    top = x.amax(1, keepdim=True)
    away = top - x.gather(1, target)  # of the target from the largest logit
    x.sub_(top).exp_()
    total = x.sum(1, keepdim=True)
    torch.add(total.log(), away, out=nll[:, None])
    if factor is not None:
        x.mul_(factor / total)
        x.scatter_add_(1, target, x.new_full((), -factor).expand_as(target))
        if x is not logits:
            logits.copy_(x)
