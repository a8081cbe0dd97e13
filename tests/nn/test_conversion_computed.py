"""``convert`` of layers whose weights something else computes: hooks, and modules around them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import conversion_report, convert, revert

T, B, D = 5, 3, 4


class WeightDrop(nn.Module):
    """As fastai and AWD-LSTM's authors write it: a weight of the module within is dropped anew."""

    def __init__(self, module: nn.Module, p: float) -> None:
        super().__init__()
        self.module, self.p = module, p
        raw = module.weight_hh_l0
        del module._parameters["weight_hh_l0"]
        self.weight_hh_l0_raw = nn.Parameter(raw.data)
        self._set()

    def _set(self) -> None:
        dropped = nn.functional.dropout(1.0 * self.weight_hh_l0_raw, self.p, self.training)
        self.module.weight_hh_l0 = dropped

    def forward(self, x: Tensor) -> Any:
        self._set()
        return self.module(x)


def by_hook(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, "weight_hh_l0")


@pytest.mark.parametrize("wrap", [by_hook, lambda m: WeightDrop(m, 0.0)], ids=["hook", "around"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_computed_weight_goes_on_being_computed(cell: Any, wrap: Any) -> None:
    """What is computed is used, its gradient reaches what it is computed from, and back again."""
    torch.manual_seed(1)
    theirs = wrap(cell(D, 32))
    ours = wrap(cell(D, 32))
    ours.load_state_dict(theirs.state_dict())
    convert(ours, input_dropout=0.0, recurrent_dropout=1e-9)  # our ops, and all units kept
    x = torch.randn(T, B, D)
    for model in (theirs, ours):
        model.train()
        model(x)[0].square().sum().backward()
    assert len(conversion_report(ours).converted) == 1
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    (found,) = conversion_report(ours).modules
    assert found.why.endswith("computed before each call, by what is around it: weight_hh_l0")
    with torch.no_grad():
        for parameter in [*ours.parameters(), *theirs.parameters()]:
            parameter.mul_(0.5)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0], rtol=0, atol=0)
    revert(ours)
    assert torch.equal(ours(x)[0], theirs(x)[0])
