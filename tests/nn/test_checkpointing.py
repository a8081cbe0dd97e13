"""Activation checkpointing: what is computed again drops what it dropped, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from opennmt_sd import (
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
)

D = 6
MODULES: dict[str, Callable[[], Any]] = {
    "lstm": lambda: StructuredLSTM(D, D, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5),
    "masked lstm": lambda: StructuredLSTM(D, D, input_dropout=0.5),
    "gru": lambda: StructuredGRU(D, D, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5),
    "gru cell": lambda: StructuredGRUCell(D, D, input_dropout=0.5, recurrent_dropout=0.5),
    "cell": lambda: StructuredLSTMCell(D, D, input_dropout=0.5, recurrent_dropout=0.5),
    "linear": lambda: MaskedLinear(D, D),
    "dropout": lambda: nn.Sequential(nn.Linear(D, D), StructuredDropout()),
}
TEXT = (
    "a forward pass that is computed again in the backward pass (activation checkpointing) cannot "
    "draw from a generator of its own: the sets would be others, and the gradients wrong. Set "
    "module.generator = None: torch's default generator is put back for it"
)


def gradients(module: Any, name: str, run: Callable[..., Any]) -> list[torch.Tensor]:
    x = torch.randn(
        (3, D) if "cell" in name else (5, 3, D), generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    torch.manual_seed(2)
    y = run(module, x)
    first = y[0] if isinstance(y, tuple) else y
    return list(torch.autograd.grad(first.square().sum(), [x, *module.parameters()]))


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("name", MODULES)
def test_the_default_generator_is_put_back(name: str, reentrant: bool) -> None:
    module = MODULES[name]()

    def again(module: Any, x: torch.Tensor) -> Any:
        return checkpoint(module, x, use_reentrant=reentrant)

    def whole(module: Any, x: torch.Tensor) -> Any:
        return module(x)

    if reentrant:  # it knows backward() only
        results = []
        for run in (whole, again):
            x = torch.ones((3, D) if "cell" in name else (5, 3, D), requires_grad=True)
            module.zero_grad()
            torch.manual_seed(2)
            y = run(module, x)
            (y[0] if isinstance(y, tuple) else y).square().sum().backward()
            results.append([x.grad, *[p.grad for p in module.parameters()]])
    else:
        results = [gradients(module, name, run) for run in (whole, again)]
    for want, got in zip(*results):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("name", MODULES)
def test_a_generator_of_its_own_is_refused(name: str, reentrant: bool) -> None:
    module = MODULES[name]()
    for part in module.modules():
        if hasattr(part, "generator"):
            part.generator = torch.Generator().manual_seed(1)
    x = torch.ones((3, D) if "cell" in name else (5, 3, D), requires_grad=True)
    y = checkpoint(module, x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError) as error:
        (y[0] if isinstance(y, tuple) else y).sum().backward()
    assert str(error.value) == TEXT
    whole = module(x)  # without checkpointing it goes on to work
    (whole[0] if isinstance(whole, tuple) else whole).sum().backward()
