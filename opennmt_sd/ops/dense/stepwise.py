"""The masked linear layer, a step at a time: torch's product of a masked input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.dropout import Keep
from opennmt_sd.dropout.steps import Steps
from opennmt_sd.ops.deferred import DeferredLinear, LinearStep


class _Kernels:
    engine = "dense"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.detach()
        self.read: tuple[Tensor, ...] = (self.weight,)
        self.bias = None if bias is None else bias.detach()

    def fp(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:  # noqa: ARG002 - x is masked
        return F.linear(x, self.weight, self.bias)

    def bp(self, dy: Tensor, keep: Keep | None, t: int) -> Tensor:  # noqa: ARG002
        return dy @ self.weight

    def wg(self, steps: list[LinearStep]) -> tuple[Tensor, Tensor | None]:
        x, dy = (torch.cat(rows) for rows in zip(*((step.x, step.dy) for step in steps)))
        return dy.t() @ x, None if self.bias is None else dy.sum(0)


class Weight(DeferredLinear):
    """A weight ``[N, D]`` and a bias ``[N]``, whose input is masked before the product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias, _Kernels(weight, bias))
        self._drop: Steps | None = None

    def step(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        if keep is not None:
            if self._drop is None or self._drop.keep is not keep:
                self._drop = Steps(keep, x)
            x = self._drop(x, t)
        return super().step(x, None, t)


def prepare(weight: Tensor, bias: Tensor | None) -> Weight:
    return Weight(weight, bias)
