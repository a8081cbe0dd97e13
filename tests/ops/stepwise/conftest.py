"""A loop of steps, each of which needs what the one before gave, and the same by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.dropout import Keep

T, B, D = 5, 3, 6


class Steps:
    """Inputs ``x [B, D]``, ``weight [D, D]``, ``bias [D]``, gradients ``dy [T, B, D]``; loops."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(1)

        def make(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        self.given = {"x": make(B, D), "weight": make(D, D) * D**-0.5, "bias": make(D),
                      "dy": make(T, B, D)}  # fmt: skip

    def leaves(self, frozen: str = "") -> dict[str, Tensor]:
        names = ("x", "weight", "bias")
        return {n: self.given[n].clone().requires_grad_(n != frozen) for n in names}

    def loop(
        self, step: Callable[[Tensor, int], Tensor], x: Tensor, steps: int = T
    ) -> list[Tensor]:
        """What stepwise use is for: the next input needs this step's output, ``[B, D]``."""
        outputs = []
        for t in range(steps):
            x = torch.tanh(step(x, t))
            outputs.append(x)
        return outputs

    def each(self, leaves: dict[str, Tensor], keep: Keep | None) -> list[Tensor]:
        """The output of every step of ours."""
        handle = ops.prepare(leaves["weight"], leaves["bias"])
        return self.loop(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])

    def run(self, leaves: dict[str, Tensor], keep: Keep | None) -> Tensor:
        """All of them, ``[T, B, D]``."""
        return torch.stack(self.each(leaves, keep))

    def grads(self, leaves: dict[str, Tensor]) -> dict[str, Any]:
        return {f"d{n}": leaf.grad for n, leaf in leaves.items()}

    def wanted(self, keep: Keep | None, steps: int = T, frozen: str = "") -> dict[str, Any]:
        """Output and gradients by plain autograd: a dropped input and torch's linear layer."""
        leaves = self.leaves(frozen)

        def step(x: Tensor, t: int) -> Tensor:
            if keep is not None:
                x = x * keep.mask().expand(T, B, D)[t] * keep.scale
            return torch.nn.functional.linear(x, leaves["weight"], leaves["bias"])

        y = torch.stack(self.loop(step, leaves["x"], steps))
        y.backward(self.given["dy"][:steps])
        return {"y": y.detach(), **self.grads(leaves)}


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture(params=["structured", "fixed", "mask", "fixed mask", "staggered", None], ids=str)
def keep(request: pytest.FixtureRequest, draw) -> Keep | None:
    """What is kept at p = 0.5, of each kind; None where all is."""
    return None if request.param is None else draw(request.param, 0.5, T, B, D)
