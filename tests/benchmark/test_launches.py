"""What a GPU is asked to do: no more than torch asks it, and as the documentation says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredLSTM,
    ops,
)
from opennmt_sd.benchmark import launches
from opennmt_sd.benchmark.launching import counted
from opennmt_sd.compat import TORCH

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
META = torch.device("meta")


@cache
def count(name: str) -> launches.Count:
    (found,) = launches.rows([case for case in launches.CASES if case.name == name])
    return found


def documented() -> dict[str, list[str]]:
    """The page's table: of each case its cells."""
    lines = (line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines())
    names = {case.name for case in launches.CASES}
    return {name: cells for name, *cells in lines if name in names}


NAMES = [case.name for case in launches.CASES]


@pytest.mark.parametrize("case", [case for case in launches.CASES if case.limit is not None],
                         ids=lambda case: case.name)  # fmt: skip
def test_no_more_than_torch(case: launches.Case) -> None:
    found = count(case.name)
    assert found.ratio is not None
    assert case.limit is not None
    assert found.ratio <= case.limit
    assert found.stock_waits is not None
    assert found.waits <= found.stock_waits


@pytest.mark.skipif(TORCH < (2, 10), reason="older optimizers launch other ops")
@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_it(name: str) -> None:
    """A launch that is added is seen here: take it out, or run suite=launches and say so."""
    (cells,) = launches.table([count(name)])
    assert documented()[name] == list(cells.values())[1:]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("projected_nll")])
def test_a_loss(name: str) -> None:
    assert count(name).ours <= 25


def test_a_loss_depends_on_no_size() -> None:
    want = launches.loss(2, 3, 4, 5).names
    assert launches.loss(7, 8, 9, 3000).names == want


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_of_recurrent_dropout(cell: str) -> None:
    assert launches.steps_of_recurrence(cell) <= 12


MODULES = {
    "linear": lambda p: MaskedLinear(6, 9, dropout=p),
    "dropout": StructuredDropout,
    "lstm": lambda p: StructuredLSTM(6, 5, 2, dropout=p, input_dropout=p),
    "gru": lambda p: StructuredGRU(6, 5, 2, dropout=p, input_dropout=p, bidirectional=True),
}


@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("time", ["random", "fixed"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_wait_for_nothing(name: str, layout: str, time: str, space: str) -> None:
    """Nor do launches depend on the number of steps."""
    found = []
    for T in (3, 6):
        with META:
            module, x = MODULES[name](DropoutPattern(0.5, space, time)), torch.zeros(T, 4, 6)
        if layout == "packed":
            sizes = torch.tensor([4, 3, 1, 1, 1, 1][:T])
            given = torch.nn.utils.rnn.PackedSequence(x[0, 0].expand(int(sizes.sum()), -1), sizes)
        with counted() as seen:
            out = module(x if layout == "padded" else given)
            out = out[0] if name in ("lstm", "gru") else out
            if name != "dropout":
                (out if layout == "padded" else out.data).sum().backward()
        assert not seen.waits
        found.append(seen.names)
    assert found[0] == found[1]


def test_what_is_counted() -> None:
    with counted() as seen:
        x = torch.zeros(3, 4).to(META)  # 1: the copy; the zeros are the CPU's
        y = (x.t()[1] + 1).view(3, 1)  # 2: the sum
        y.sum().item()  # 3, and a wait
    assert (seen.total, dict(seen.waits)) == (3, {"item": 1})
    assert seen.names == {"_to_copy": 1, "add": 1, "sum": 1}


def test_the_engine_of_other_devices() -> None:
    assert [ops.engine_for(kind) for kind in ("cuda", "meta", "mps")] == ["dense"] * 3
