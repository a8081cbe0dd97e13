"""What the tests of the modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from opennmt_sd import ops
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


@pytest.fixture(params=["auto", *sorted(ENGINES)])
def any_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The automatic choice, and each engine forced."""
    with ops.use(there(request.param)):
        yield request.param
