"""The masked linear layer: three phases over all rows, and their place in autograd."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd._compile import uncompiled
from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.ops.autocast import not_lowered
from opennmt_sd.ops.checks import refuse_second_derivatives
from opennmt_sd.ops.engine import Projection


def fp(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, sizes: list[int]
) -> Tensor:
    """Compute the forward product: rows ``[R, D]`` to ``[R, N]``."""
    if not isinstance(keep, KeepSets):
        return F.linear(masked(x, keep, sizes), weight, bias)
    if keep.steps == 1:
        K = keep.kept(0)
        return F.linear(x.index_select(1, K) * keep.scale, weight.index_select(1, K), bias)
    packed = weight.t().contiguous()  # [D, N]: a kept unit is one row, spread over all steps
    y = x.new_empty(x.shape[0], weight.shape[0])
    for t, rows in enumerate(slices(sizes)):
        K = keep.kept(t)
        product = x[rows].index_select(1, K) @ packed.index_select(0, K)
        y[rows] = product.mul_(keep.scale) if bias is None else product.mul_(keep.scale).add_(bias)
    return y


def bp(dy: Tensor, keep: Keep | None, weight: Tensor, sizes: list[int]) -> Tensor:
    """Compute the data gradient: rows ``[R, N]`` to ``[R, D]``, zero outside the kept units."""
    if not isinstance(keep, KeepSets):
        return masked(dy @ weight, keep, sizes)
    dx = dy.new_zeros(dy.shape[0], weight.shape[1])
    if keep.steps == 1:
        K = keep.kept(0)
        return dx.index_copy_(1, K.long(), (dy @ weight.index_select(1, K)).mul_(keep.scale))
    packed = weight.t().contiguous()
    for t, rows in enumerate(slices(sizes)):
        K = keep.kept(t)
        product = dy[rows] @ packed.index_select(0, K).t()
        dx[rows].index_copy_(1, K.long(), product.mul_(keep.scale))
    return dx


def wg(x: Tensor, dy: Tensor, keep: Keep | None, sizes: list[int]) -> Tensor:
    """Compute the weight gradient of rows x ``[R, D]`` and dy ``[R, N]``: ``[N, D]``."""
    if not isinstance(keep, KeepSets):
        return dy.t() @ masked(x, keep, sizes)
    dw = dy.new_zeros(x.shape[1], dy.shape[1], dtype=sum_dtype(dy))  # [D, N]
    # One set: all rows are one step.
    for t, rows in enumerate(slices([sum(sizes)] if keep.steps == 1 else sizes)):
        K = keep.kept(t)
        product = x[rows].index_select(1, K).t() @ dy[rows]
        dw.index_add_(0, K, product.to(dw.dtype), alpha=keep.scale)
    return dw.t().to(dy.dtype).contiguous()


def masked(x: Tensor, keep: Keep | None, sizes: list[int]) -> Tensor:
    if keep is None or not x.numel():
        return x
    if len(set(sizes)) == 1:  # not packed: the mask broadcasts
        return keep.apply(x.view(len(sizes), sizes[0], -1)).view_as(x)
    return keep.apply(x, torch.tensor(sizes, device="cpu"))


def slices(sizes: list[int]) -> list[slice]:
    ends = [0, *accumulate(sizes)]
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of sums over steps: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


class _MaskedLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, keep: Keep, sizes: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.keep, ctx.sizes = keep, sizes
        return fp(x, keep, weight, bias, sizes)

    @staticmethod
    @not_lowered
    def backward(ctx: Any, dy: Tensor) -> Any:
        refuse_second_derivatives("portable", dy)
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dx = bp(dy, ctx.keep, weight, ctx.sizes) if need_x else None
        dw = wg(x, dy, ctx.keep, ctx.sizes) if need_weight else None
        return dx, dw, dy.sum(0) if need_bias else None, None, None


@uncompiled  # loops over steps whose sizes only the data know
def masked_linear(projection: Projection) -> Tensor:
    x, keep, weight, bias = projection.x, projection.keep, projection.weight, projection.bias
    if keep is None:
        return F.linear(x, weight, bias)
    sizes = step_sizes(x, projection.batch_sizes)
    y = _MaskedLinear.apply(x.flatten(0, -2), weight, bias, keep.to(x.device), sizes)  # [R, N]
    return y.view(*x.shape[:-1], weight.shape[0])


def step_sizes(x: Tensor, batch_sizes: Tensor | None) -> list[int]:
    """Return the rows of each step."""
    return [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
