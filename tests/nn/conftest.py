"""What the tests of the modules share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import (
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
    ops,
)
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.engines import ENGINES

OTHERS = sorted(set(ENGINES) - {"naive"})


@pytest.fixture(autouse=True)
def automatic_engine() -> Iterator[None]:
    """No test leaves an engine forced behind it."""
    ops.use("auto")
    yield
    ops.use("auto")


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(1)


def there(name: str) -> str:
    if name == "cpu" and native() is None:
        pytest.skip("the native module was not built")
    return name


@pytest.fixture(params=OTHERS)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine but naive, which is what they are compared with."""
    return there(request.param)


@pytest.fixture(params=sorted(set(OTHERS) - {"dense"}))
def compacting(request: pytest.FixtureRequest) -> str:
    """Each engine that multiplies what is kept and no more; dense masks, and multiplies all."""
    return there(request.param)


@pytest.fixture(params=["auto", *sorted(ENGINES)])
def any_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The automatic choice, and each engine forced."""
    with ops.use(there(request.param)):
        yield request.param


class Kind(NamedTuple):
    """A recurrent cell: torch's modules of it and ours, and the tensors of its state."""

    stock: type[nn.RNNBase]
    ours: Any
    stock_cell: type[nn.RNNCellBase]
    our_cell: Any
    states: tuple[str, ...]
    gates: int
    op: str

    def hx(self, states: Any) -> Any:
        """Return a state as the modules take it: a tuple, or the one tensor."""
        return tuple(states) if len(self.states) > 1 else next(iter(states))

    def parts(self, hx: Any) -> tuple[Tensor, ...]:
        """Return the tensors of a state as the modules give it."""
        return hx if isinstance(hx, tuple) else (hx,)


KINDS = {
    "LSTM": Kind(nn.LSTM, StructuredLSTM, nn.LSTMCell, StructuredLSTMCell, ("h", "c"), 4,
                 "lstm_layer"),
    "GRU": Kind(nn.GRU, StructuredGRU, nn.GRUCell, StructuredGRUCell, ("h",), 3,
                "gru_layer"),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each recurrent cell, for what is true of all of them."""
    return KINDS[request.param]
