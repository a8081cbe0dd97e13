"""The loss of a projection onto the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.kernels import Rows, Sets
from opennmt_sd.ops.cpu.operands import in_float32, rows_and_sets
from opennmt_sd.ops.engine import Loss, Projection


class _ProjectedNLL(Function):
    """The logits become their own gradient; what comes in for the loss, a number, is multiplied in
    by the products that need it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sets: Sets, sizes: list[int],
        loss: Loss, recorded: bool, lowers: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        logits = kernels.linear_fp(x, weight, bias, sets, sizes, lowers)  # [R, V]
        wants_grad = recorded and any(ctx.needs_input_grad)  # which ignores torch.no_grad
        losses, hits = kernels.nll_(
            logits, loss.targets.flatten(), loss.label_smoothing, 1.0 if wants_grad else 0.0
        )
        if wants_grad:
            ctx.save_for_backward(x, weight, logits)
        ctx.sets, ctx.sizes, ctx.factor, ctx.lowers = sets, sizes, loss.factor, lowers
        correct = hits.sum()
        ctx.mark_non_differentiable(correct)
        return losses.sum() * loss.factor, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        refuse_second_derivatives("cpu", grad)
        refuse_batched_gradients("cpu", grad)
        x, weight, d_logits = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        factor = float(grad) * ctx.factor
        how = ctx.sets._replace(scale=ctx.sets.scale * factor), ctx.sizes, ctx.lowers
        dx = kernels.linear_bp(d_logits, weight, *how) if need_x else None
        dw = kernels.linear_wg(x, d_logits, *how) if need_weight else None
        db = d_logits.sum(0).mul_(factor) if need_bias else None
        return dx, dw, db, *[None] * 5


def projected_nll(projection: Projection, loss: Loss) -> tuple[Tensor, Tensor]:
    projection = in_float32(projection)
    x, batch_sizes = projection.x, projection.batch_sizes
    rows, sets = rows_and_sets(x, projection.keep, batch_sizes)
    sizes = Rows.of(x, batch_sizes).sizes(len(rows))
    return _ProjectedNLL.apply(
        rows,
        projection.weight,
        projection.bias,
        sets,
        sizes,
        loss,
        torch.is_grad_enabled(),
        projection.lowers,
    )
