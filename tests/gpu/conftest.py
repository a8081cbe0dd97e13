"""Tests that need a GPU: left out, with the reason, where torch sees none.

That they are right themselves is seen without a card too, as far as they ask for none of its own
doings: ``OPENNMT_SD_GPU_TESTS=cpu pytest tests/gpu`` runs them on the CPU, on the dense engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.benchmark.row import relative_error
from opennmt_sd.benchmark.target import allow_tf32, tf32
from opennmt_sd.ops import engines

ON = os.environ.get("OPENNMT_SD_GPU_TESTS", "cuda")
NONE = "torch sees no CUDA device here"

# Of the largest value; what is summed has up to 650 terms, and is rounded a step at a time.
TOLERANCE = {torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class LeftOut(pytest.Module):
    """A file of tests that cannot run here: one skip, and a thousand tests that are not made."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(NONE, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> LeftOut | None:
    if ON == "cuda" and not torch.cuda.is_available():
        return LeftOut.from_parent(parent, path=module_path)
    return None


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    """The device under test; float32 is not rounded to TF32 there."""
    before = tf32()
    allow_tf32(False, False)
    ops.use("auto" if ON == "cuda" else "dense")
    yield torch.device("cuda", 0) if ON == "cuda" else torch.device("cpu")
    ops.use("auto")
    allow_tf32(*before)


@pytest.fixture
def settled(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> Iterator[None]:  # fmt: skip
    """Of two ways the newer one is taken wherever it can be had, however slow or small: Triton's
    kernels, and the kept columns."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind in engines.GATHERED:
        monkeypatch.setitem(engines.GATHERED, kind, 0)
    with ops.calibrate(False):
        yield


@pytest.fixture(params=["auto", "dense"])
def engine(request: pytest.FixtureRequest, device: torch.device) -> str:
    """What is chosen, and the loop of torch's ops that is there on every card."""
    if device.type == "cpu" and request.param == "auto":
        pytest.skip("on a CPU these tests are of the dense engine")
    return request.param


@pytest.fixture
def card(device: torch.device) -> torch.device:
    """A GPU, for what nothing else has: streams, graphs, cuDNN."""
    if device.type != "cuda":
        pytest.skip(NONE)
    return device


@pytest.fixture
def close() -> Callable[..., None]:
    """``close(got, want, dtype)``: two runs' results by name, of the dtype and in float64."""

    def close(got: dict[str, Tensor], want: dict[str, Tensor], dtype: torch.dtype) -> None:
        assert got.keys() == want.keys()
        errors = {n: relative_error([got[n].cpu()], [want[n].cpu()]) for n in want}
        wrong = {n: f"{e:.1e}" for n, e in errors.items() if not e <= TOLERANCE[dtype]}
        assert not wrong, f"{wrong}, {TOLERANCE[dtype]:.0e} is allowed"

    return close


@pytest.fixture
def without_waiting(card: torch.device) -> Callable[[Callable[[], Any]], Any]:
    """``without_waiting(step)``: run it; the host must not wait for the device on the way."""

    def run(step: Callable[[], Any]) -> Any:
        torch.cuda.synchronize(card)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return run
