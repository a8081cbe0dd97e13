"""Case IV without kernels: the kept columns are gathered once, and torch's own products shrink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredGRU, StructuredLSTM, ops
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.ops import engines

T, B, D, H = 6, 4, 40, 24
FIXED = DropoutPattern(0.5, time="fixed", count="exact")
MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: MaskedLinear(D, H, dropout=FIXED),
    "LSTM": lambda: StructuredLSTM(D, H, 2, input_dropout=FIXED, dropout=FIXED),
    "one call": lambda: StructuredLSTM(D, H, 2, input_dropout=FIXED, bidirectional=True),
    "GRU": lambda: StructuredGRU(D, H, 2, input_dropout=FIXED, dropout=FIXED, bias=False),
}


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in engines.GATHERED:
        monkeypatch.setitem(engines.GATHERED, kind, 0)


def results(module: nn.Module, x: Any, engine: str) -> list[torch.Tensor]:
    torch.manual_seed(3)
    with ops.use(engine):
        y = module(x)
    y = y[0] if isinstance(module, nn.RNNBase) else y
    y = y.data if isinstance(y, PackedSequence) else y
    leaf = x.data if isinstance(x, PackedSequence) else x
    wanted = [leaf, *module.parameters()]
    return [y, *torch.autograd.grad(y.pow(2).sum(), wanted)]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", MODULES)
def test_equals_naive(name: str, packed: bool) -> None:
    module = MODULES[name]().double()
    sizes = [4, 4, 3, 2, 1, 1]
    x = torch.randn(sum(sizes) if packed else T, *([] if packed else [B]), D).double()
    x.requires_grad_()
    given = PackedSequence(x, torch.tensor(sizes)) if packed else x
    torch.testing.assert_close(results(module, given, "dense"), results(module, given, "naive"))


def flops(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_half_of_every_product(dtype: torch.dtype) -> None:
    """Forward and both backward ones: p is .5, exactly."""
    x = torch.randn(T, B, D, dtype=dtype, requires_grad=True)

    def step(module: nn.Module) -> Callable[[], Any]:
        return lambda: module.to(dtype)(x).sum().backward()

    with ops.use("dense"):
        dense, ours = (flops(step(m)) for m in (nn.Linear(D, H), MODULES["linear"]()))
    assert ours * 2 == dense


def test_float16_on_a_cpu_gathers_by_itself() -> None:
    x = torch.randn(T, B, D, dtype=torch.float16)
    module = MODULES["linear"]().half()
    try:
        dense = flops(lambda: module.eval()(x))
    except RuntimeError as error:
        pytest.skip(f"torch's own product fails in float16: {error}")
    assert flops(lambda: module.train()(x)) * 2 == dense


def test_the_vocabulary_of_a_language_model() -> None:
    model = LanguageModel(50, embedding=8, hidden=D, fc=FIXED)
    ids = torch.zeros(T, B, dtype=torch.int64)
    found = {}
    for p in (0.5, 0.0):
        model.decoder.dropout = FIXED.at(p)
        with ops.use("dense"):
            found[p] = flops(lambda: model(ids, ids))
    assert found[0.0] - found[0.5] == T * B * D * 50  # half of 2 R D V


def test_what_is_dropped_is_never_read() -> None:
    module = MODULES["linear"]()
    x = torch.full((T, B, D), torch.nan)
    torch.manual_seed(3)
    keep = FIXED.draw(T, B, D)
    x[..., keep.kept(0)] = 1.0
    torch.manual_seed(3)
    with ops.use("dense"):
        y = module(x)
    assert not y.isnan().any()


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_nothing_kept(name: str) -> None:
    module = MODULES[name]()
    keep = FIXED.draw(T, B, D)
    keep = type(keep)(keep.idx, torch.zeros_like(keep.count), 2.0)
    x = torch.randn(T, B, D)
    module.dropout = 0.0
    with ops.use("dense"):
        y = module(x, input_keep=keep)[0]
        want = module.eval()(torch.zeros_like(x))[0]
    torch.testing.assert_close(y, want)
