"""What the tests of the ops share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, KeepSets, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.dropout.staggered import StaggeredSets
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.engines import ENGINES

OTHERS = sorted(set(ENGINES) - {"naive"})
SPACES = {"structured": ("structured", "random"), "fixed": ("structured", "fixed"),
          "mask": ("random", "random"), "fixed mask": ("random", "fixed"),
          "staggered": ("structured", "random")}  # fmt: skip


@pytest.fixture(autouse=True)
def automatic_engine() -> Iterator[None]:
    """No test leaves an engine forced behind it."""
    ops.use("auto")
    yield
    ops.use("auto")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Memory from ``torch.empty`` is full of NaN: what is read must have been written."""
    torch.use_deterministic_algorithms(True)  # switches the poisoning on, where torch has it
    yield
    torch.use_deterministic_algorithms(False)


def there(name: str) -> str:
    if name == "cpu" and native() is None:
        pytest.skip("the native module was not built")
    return name


@pytest.fixture(params=OTHERS)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine but naive, which is what they are compared with."""
    return there(request.param)


@pytest.fixture(params=[name for name in OTHERS if name != "dense"])
def compacting(request: pytest.FixtureRequest) -> str:
    """Each engine that leaves dropped units out; the dense one does where torch's products do."""
    return there(request.param)


@pytest.fixture(params=sorted(ENGINES))
def any_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each engine, naive too, forced for the whole test."""
    with ops.use(there(request.param)):
        yield request.param


@pytest.fixture
def draw() -> Callable[..., Keep | None]:
    """Keep sets by name, p and size; None for "keeps all", and sets that keep nothing."""

    def draw(kind: str, p: float | str | None, T: int, B: int, D: int, seed: int = 0):
        if p is None:
            return None
        if kind == "staggered":
            sets = draw("structured", p, StaggeredSets.count(T, B), B, D, seed)
            return StaggeredSets.of(sets, T, B)
        if p == "all":  # a legal draw, but too rare to wait for
            return _nothing(kind, T, B, D)
        space, time = SPACES[kind]
        generator = torch.Generator().manual_seed(seed)
        return DropoutPattern(float(p), space, time).draw(T, B, D, generator)

    return draw


def _nothing(kind: str, T: int, B: int, D: int) -> Keep:
    space, time = SPACES[kind]
    keep = DropoutPattern(0.0, space, time).draw(T, B, D)
    if isinstance(keep, KeepSets):
        return KeepSets(keep.idx, torch.zeros_like(keep.count), 2.0)
    return type(keep)(torch.zeros_like(keep.mask()), 2.0)


@pytest.fixture
def compare() -> Callable[..., None]:
    """Compare two runs' results by name, so that a failure says which one differs."""

    def compare(got: dict[str, Any], want: dict[str, Any], **tolerance: float) -> None:
        assert got.keys() == want.keys()
        for name, expected in want.items():
            if not isinstance(expected, Tensor):
                assert got[name] is expected, name
                continue
            torch.testing.assert_close(
                got[name], expected, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}", **tolerance
            )

    return compare


@pytest.fixture
def refuses() -> Callable[..., None]:
    """Call an op with what it must refuse, by an error of a kind with this text."""

    def refuses(
        op: Callable[..., Any], given: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error) as caught:
            op(**given)
        assert str(caught.value) == text

    return refuses


@pytest.fixture
def draw_both(draw):
    """Keep sets of the input and of the state, each by its kind."""

    def draw_both(kinds, p, T: int, B: int, D: int, H: int) -> tuple[Any, Any]:
        return tuple(
            None if kind is None else draw(kind, p, T, B, width, seed)
            for seed, (kind, width) in enumerate(zip(kinds, (D, H)))
        )

    return draw_both


class Cell(NamedTuple):
    """An op, and what it is given besides the keep sets."""

    op: Callable[..., tuple[Tensor, ...]]
    stock: type[nn.RNNBase]
    gates: int
    inputs: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def finals(self) -> list[str]:
        return [f"{state}_n" for state in self.states]

    def make(
        self, T: int, B: int, D: int, H: int, sizes: list[int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the inputs, and the gradient of each output: dy and, say, dh."""
        g = torch.Generator().manual_seed(1)

        def make(*shape: int, scale: float = 1.0) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64).mul(scale).to(dtype)

        rows, N = (sum(sizes),) if sizes else (T, B), self.gates * H
        given = {"x": make(*rows, D), "weight_ih": make(N, D, scale=D**-0.5), "bias": make(N),
                 "weight_hh": make(N, H, scale=H**-0.5)}  # fmt: skip
        given |= {"bias_hn": make(H)} if "bias_hn" in self.inputs else {}
        given |= {state: make(B, H) for state in self.states}
        return given | {"dy": make(*rows, H)} | {f"d{state}": make(B, H) for state in self.states}

    def cotangents(self, given: dict[str, Tensor]) -> list[Tensor]:
        return [given[n] for n in ("dy", *(f"d{state}" for state in self.states))]

    def leaves(self, given: dict[str, Tensor], without: Collection[str] = ()) -> dict[str, Tensor]:
        """Return the inputs as leaves; `without` names those that need no gradient."""
        return {n: given[n].clone().requires_grad_(n not in without) for n in self.inputs}

    def __call__(
        self, leaves: dict[str, Tensor | None], keeps: tuple[Any, Any],
        sizes: list[int] | None = None, reverse: bool = False,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return self.op(
            **leaves, keep=keeps[0], state_keep=keeps[1], reverse=reverse,
            batch_sizes=None if sizes is None else torch.tensor(sizes),
        )  # fmt: skip

    def results(self, outputs: Sequence[Tensor], leaves: dict[str, Tensor]) -> dict[str, Any]:
        named = dict(zip(("y", *self.finals), (t.detach() for t in outputs)))
        return named | {f"d{n}": leaf.grad for n, leaf in leaves.items()}

    def run(
        self, engine: str, keeps: tuple[Any, Any], given: dict[str, Tensor],
        sizes: list[int] | None = None, reverse: bool = False, without: Collection[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Return the output, final states and every gradient."""
        leaves = self.leaves(given, without)
        with ops.use(engine):
            outputs = self(leaves, keeps, sizes, reverse)
        torch.autograd.backward(outputs, self.cotangents(given))
        return self.results(outputs, leaves)


WEIGHTS = "x", "weight_ih", "bias", "weight_hh"
LSTM = Cell(ops.lstm_layer, nn.LSTM, 4, (*WEIGHTS, "h", "c"), ("h", "c"))
GRU = Cell(ops.gru_layer, nn.GRU, 3, (*WEIGHTS, "bias_hn", "h"), ("h",))
CELLS = {"LSTM": LSTM, "GRU": GRU}


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Cell:
    """Each recurrent cell, for what is true of all of them."""
    return CELLS[request.param]
