"""A computation that has two ways, for the tests of the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import key_of

Way = Callable[[Any], Any]


def dense(operands: Any) -> Tensor:
    x, (weight,) = operands
    return x @ weight.t()


def ours(operands: Any) -> Tensor:
    x, (weight,) = operands
    return F.linear(x, weight)


class Use:
    """A computation that is called again and again."""

    def __init__(self, ours: Way = ours, dtype: torch.dtype = torch.float32) -> None:
        self.x = torch.randn(3, 5, dtype=dtype, requires_grad=True)
        self.weight = torch.randn(4, 5, dtype=dtype, requires_grad=True)
        self.way, self.tried = ours, 0

    def __call__(self, T: int = 6, B: int = 3, share: float = 0.5, rule: bool = True) -> bool:
        key = key_of("a product", self.x, (self.weight,), (5, 4), T, B, share)
        return calibration.chosen(key, self.x, rule=rule, ways=self.ways)

    def ways(self) -> calibration.Ways:
        self.tried += 1
        return calibration.Ways((self.x, [self.weight]), dense, self.way)


@pytest.fixture
def use_of() -> type[Use]:
    return Use
