"""The masked linear layer, a step at a time, its weight packed once."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.ops.deferred import DeferredLinear, LinearStep
from opennmt_sd.ops.portable.linear import sum_dtype


class _Kernels:
    engine = "portable"
    read: tuple[Tensor, ...] = ()

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.packed = weight.detach().t().clone(memory_format=torch.contiguous_format)  # [D, N]
        self.bias = None if bias is None else bias.detach()

    def fp(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        if isinstance(keep, KeepSets):
            K = keep.kept(t)
            y = (x.index_select(1, K) @ self.packed.index_select(0, K)).mul_(keep.scale)
        else:
            y = (x if keep is None else keep.apply_step(x, t)) @ self.packed
        return y if self.bias is None else y.add_(self.bias)

    def bp(self, dy: Tensor, keep: Keep | None, t: int) -> Tensor:
        if isinstance(keep, KeepSets):
            K = keep.kept(t)
            dx = dy.new_zeros(dy.shape[0], keep.width)
            product = dy @ self.packed.index_select(0, K).t()
            return dx.index_copy_(1, K.long(), product.mul_(keep.scale))
        dx = dy @ self.packed.t()
        return dx if keep is None else keep.apply_step(dx, t)

    def wg(self, steps: list[LinearStep]) -> tuple[Tensor, Tensor]:
        packed = self.packed
        dw = torch.zeros(packed.shape, dtype=sum_dtype(packed), device=packed.device)  # [D, N]
        db = dw.new_zeros(packed.shape[1])
        dense: list[tuple[Tensor, Tensor]] = []
        for step in steps:
            x, dy, keep = step.x, step.dy, step.keep
            db += dy.sum(0)
            if isinstance(keep, KeepSets):
                K = keep.kept(step.t)
                product = x.index_select(1, K).t() @ dy
                dw.index_add_(0, K, product.to(dw.dtype), alpha=keep.scale)
            else:
                dense.append((x if keep is None else keep.apply_step(x, step.t), dy))
        if dense:
            x, dy = (torch.cat(parts) for parts in zip(*dense))
            dw += x.t() @ dy
        return dw.t().to(packed.dtype).contiguous(), db.to(packed.dtype)


def prepare(weight: Tensor, bias: Tensor | None) -> DeferredLinear:
    return DeferredLinear(weight, bias, _Kernels(weight, bias))
