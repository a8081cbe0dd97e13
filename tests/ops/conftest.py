"""What the tests of the ops share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, KeepSets, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.engines import ENGINES

OTHERS = sorted(set(ENGINES) - {"naive"})
SPACES = {"structured": ("structured", "random"), "fixed": ("structured", "fixed"),
          "mask": ("random", "random"), "fixed mask": ("random", "fixed")}  # fmt: skip


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
