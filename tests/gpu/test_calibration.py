"""First-use calibration on a card: what is chosen there, that it is right, and that it waits once.

``pytest tests/gpu/test_calibration.py -s`` shows what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredGRU, StructuredLSTM, ops
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import cache_file, choices, key_of
from opennmt_sd.ops.measured import faster

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

T, B = 35, 20
FIXED = DropoutPattern(0.5, time="fixed")
MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: MaskedLinear(650, 10_000, dropout=FIXED),
    "small linear": lambda: MaskedLinear(200, 50, dropout=FIXED),
    "LSTM": lambda: StructuredLSTM(650, 650, 2, input_dropout=FIXED, dropout=FIXED),
    "one call": lambda: StructuredLSTM(650, 650, 2, input_dropout=FIXED, bidirectional=True),
    "GRU": lambda: StructuredGRU(650, 650, input_dropout=FIXED),
    "vocabulary": lambda: LanguageModel(10_000, embedding=200, hidden=650, fc=FIXED),
    "recurrent LSTM": lambda: StructuredLSTM(650, 650, 2, recurrent_dropout=0.5),
    "recurrent GRU": lambda: StructuredGRU(650, 650, recurrent_dropout=0.5, bidirectional=True),
}
TOLERANCE = {torch.float32: 2e-2, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choices.forget()
    yield
    for text, times in cache_file.read().items():
        print(f"\n{calibration.described(times)}: {text}")
    choices.forget()


def given(module: nn.Module, packed: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    if isinstance(module, LanguageModel):
        return torch.arange(T * B, device="cuda").view(T, B) % 10_000
    D = module.in_features if isinstance(module, MaskedLinear) else module.input_size
    x = torch.randn(T, B, D, device="cuda", dtype=dtype, requires_grad=True)
    if not packed:
        return x
    rows = pack_padded_sequence(x.detach(), [T - n for n in range(B)])
    rows.data.requires_grad_()
    return rows


def step(module: nn.Module, x: Any) -> list[Tensor]:
    """One forward and backward pass with one set of draws."""
    torch.manual_seed(3)
    module.zero_grad(set_to_none=True)
    y = module(x, x) if isinstance(module, LanguageModel) else module(x)
    y = y[0] if isinstance(y, tuple) else y
    y = y.data if hasattr(y, "batch_sizes") else y
    y.float().pow(2).sum().backward()
    return [y.detach(), *(p.grad for p in module.parameters() if p.grad is not None)]


def close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        size = b.float().abs().max().item()
        assert (a.float() - b.float()).abs().max().item() <= tolerance * size + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", MODULES)
def test_what_is_chosen_is_right(name: str, packed: bool, dtype: torch.dtype) -> None:
    if packed and name == "vocabulary":
        pytest.skip("its ids are padded")
    module = MODULES[name]().to("cuda", dtype)
    x = given(module, packed, dtype)
    torch.manual_seed(3)  # as each step begins
    state = torch.cuda.get_rng_state()
    got = step(module, x)
    assert torch.equal(state, torch.cuda.get_rng_state())
    with ops.use("dense"):
        want = step(module, x)
    close(got, want, TOLERANCE[dtype])
    asked = calibration.in_force()
    assert asked or (
        name.startswith("recurrent") and faster.triton_for(torch.device("cuda")) is None
    )
    assert asked.keys() == cache_file.read().keys()  # none failed: those are not written


@pytest.mark.parametrize("name", MODULES)
def test_known_choices_wait_for_nothing(name: str) -> None:
    module = MODULES[name]().to("cuda")
    x = given(module)
    for _ in range(2):
        step(module, x)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(module, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_trial_may_wait_where_nobody_else_may() -> None:
    module = MODULES["linear"]().to("cuda")
    x = given(module)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(module, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calibration.in_force().keys() == cache_file.read().keys() != set()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    """What is chosen does not show in the result's dtype: cuDNN makes float16 of bfloat16 too."""
    module = MODULES["LSTM"]().to("cuda")
    x = given(module)
    with torch.autocast("cuda", dtype=dtype):
        got = step(module, x)
        with ops.use("dense"):
            want = step(module, x)
    assert got[0].dtype == want[0].dtype
    close(got, want, TOLERANCE[dtype])
    texts = cache_file.read()
    assert texts
    assert all(f"as {str(dtype).removeprefix('torch.')} " in text for text in texts)
    assert "dense, since" not in caplog.text  # no trial failed


def test_a_captured_graph_is_dense() -> None:
    x = torch.ones(2, 2, device="cuda")
    key = key_of("a product", x, (), (2,), 2, 2, 0.5)
    stream, seen = torch.cuda.Stream(), []
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
        seen.append(calibration.chosen(key, x, rule=True, ways=None))  # type: ignore[arg-type]
        x + 1
    assert seen == [False]
    assert calibration.in_force() == {}


def test_out_of_memory_is_dense(caplog: pytest.LogCaptureFixture) -> None:
    """One way asks for more than there is: nothing is lost."""
    x = torch.ones(2, 2, device="cuda")

    def greedy(operands: Any) -> Tensor:
        return operands[0] + torch.empty(2**45, device="cuda", dtype=torch.uint8)[0]

    ways = calibration.Ways((x,), lambda operands: operands[0] + 1, greedy)
    key = key_of("a product", x, (), (2,), 2, 2, 0.5)
    assert not calibration.chosen(key, x, rule=True, ways=lambda: ways)
    assert "dense, since a trial of another way failed (OutOfMemoryError" in caplog.text
    assert torch.cuda.is_available()
    assert (x + 1).sum().item() == 8


def test_what_looking_up_costs() -> None:
    x = torch.ones(2, 2, device="cuda")
    ways = calibration.Ways((x,), lambda o: o[0] + 1, lambda o: o[0] + 1)

    def look() -> None:
        key = key_of("a product", x, (x,), (2, 3), 2, 2, 0.5)
        calibration.chosen(key, x, rule=True, ways=lambda: ways)

    look()
    start = time.perf_counter()
    for _ in range(1000):
        look()
    us = (time.perf_counter() - start) * 1e3
    print(f"\na look at a choice: {us:.2f} us")
    assert us < 100
