"""Where two ways are timed: the recurrence, and what all steps keep; on a fake card.

Whichever is taken, results and gradients are those of the naive engine, and so is the random state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredGRU, StructuredLSTM, ops
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.ops import calibration
from opennmt_sd.ops.dense import recurrence as loop
from opennmt_sd.ops.measured import faster, layer

T, B, D, H = 6, 4, 10, 8
FIXED = DropoutPattern(0.5, time="fixed", count="exact")
IDS = torch.randint(50, (T, B))


def language_model() -> nn.Module:
    return LanguageModel(50, embedding=8, hidden=D, fc=FIXED)


# name: a module, how often it asks, what it asks about
GATHER: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "linear": (lambda: MaskedLinear(D, H, dropout=FIXED), ["gathered linear, 8 x 10, "]),
    "LSTM": (
        lambda: StructuredLSTM(D, H, 2, input_dropout=FIXED, dropout=FIXED),
        ["gathered LSTM, 10 x 8, ", "gathered LSTM, 8 x 8, "],
    ),
    "one call": (
        lambda: StructuredLSTM(D, H, 2, input_dropout=FIXED, bidirectional=True),
        ["gathered LSTM both directions 2 layers, 10 x 8, "],
    ),
    "GRU": (
        lambda: StructuredGRU(D, H, input_dropout=FIXED, bias=False),
        ["gathered GRU, 10 x 8, "],
    ),
    "vocabulary": (language_model, ["gathered vocabulary, 50 x 10, "]),
}
RH = {"input_dropout": 0.5, "dropout": 0.5, "recurrent_dropout": 0.5}
RECURRENT: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "LSTM": (
        lambda: StructuredLSTM(D, H, 2, **RH),
        ["recurrence LSTM, 8, "],
    ),
    "both directions": (
        lambda: StructuredGRU(D, H, bidirectional=True, input_dropout=0.5, recurrent_dropout=0.5),
        ["recurrence GRU, 8, ", "recurrence GRU reversed, 8, "],
    ),
}


class Kernels:
    """In the place of Triton's: the loop of the dense engine, which counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(faster, "triton_for", lambda _: self)
        monkeypatch.setattr(faster, "DTYPES", (torch.float64,))

    def __call__(self, operands: loop.Operands) -> Any:
        self.calls += 1
        return loop.recurrence(operands)


def results(module: nn.Module, x: Any, engine: str) -> list[Tensor]:
    torch.manual_seed(3)
    with ops.use(engine):
        y = module(IDS, IDS) if isinstance(module, LanguageModel) else module(x)
    y = y[0] if isinstance(y, tuple) and not isinstance(y, PackedSequence) else y
    y = y.data if isinstance(y, PackedSequence) else y
    leaf = x.data if isinstance(x, PackedSequence) else x
    found = torch.autograd.grad(y.pow(2).sum(), [leaf, *module.parameters()], allow_unused=True)
    return [y, *(d for d in found if d is not None), torch.rand(1)]


def inputs(packed: bool) -> Any:
    sizes = [4, 4, 3, 2, 1, 1]
    x = torch.randn(sum(sizes) if packed else T, *([] if packed else [B]), D, dtype=torch.float64)
    x.requires_grad_()
    return PackedSequence(x, torch.tensor(sizes)) if packed else x


def begin(texts: Iterable[str], asked: list[str]) -> bool:
    """Whether each text begins as one that is asked for, packed or not."""
    found = sorted(text.replace(" packed", "") for text in texts)
    return all(text.startswith(start) for text, start in zip(found, sorted(asked), strict=True))


LAYOUTS = {"padded": False, "packed": True}
CASES = [
    (n, layout) for n in GATHER for layout in LAYOUTS if (n, layout) != ("vocabulary", "packed")
]


@pytest.mark.parametrize("ours", [1.0, 3.0], ids=["gathered", "dense"])
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_what_all_steps_keep(fake_card, name: str, layout: str, ours: float) -> None:
    make, asked = GATHER[name]
    fake_card.ours = ours
    module, x = make().double(), inputs(LAYOUTS[layout])
    want = results(module, x, "naive")
    for _ in range(2):
        torch.testing.assert_close(results(module, x, "auto"), want)
    choices = calibration.in_force()
    assert list(choices.values()) == [ours < 2] * len(asked)
    assert begin(choices, asked)
    assert all("0.5 kept" in text for text in choices)
    assert fake_card.marks == len(asked) * 2 * 2 * 9


@pytest.mark.parametrize("ours", [1.0, 3.0], ids=["kernels", "loop"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrence(
    fake_card, monkeypatch: pytest.MonkeyPatch, name: str, packed: bool, ours: float
) -> None:
    make, asked = RECURRENT[name]
    kernels, fake_card.ours = Kernels(monkeypatch), ours
    module, x = make().double(), inputs(packed)
    want = results(module, x, "naive")
    torch.testing.assert_close(results(module, x, "auto"), want)
    tried = kernels.calls
    torch.testing.assert_close(results(module, x, "auto"), want)
    layers = 2  # or directions
    assert kernels.calls - tried == (layers if ours < 2 else 0)
    choices = calibration.in_force()
    assert list(choices.values()) == [ours < 2] * len(asked)
    assert begin(choices, asked)


@pytest.mark.parametrize("ours", [1.0, 3.0], ids=["kernels", "torch's"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("cell", [StructuredLSTM, StructuredGRU])
def test_a_layer_that_torch_has_too(
    fake_card, monkeypatch: pytest.MonkeyPatch, cell: Any, packed: bool, ours: float
) -> None:
    kernels, fake_card.ours = Kernels(monkeypatch), ours
    monkeypatch.setattr(layer, "has_triton", lambda _: True)
    module = cell(D, H, 2, input_dropout=0.5, dropout=0.5, bidirectional=True).double()
    x = inputs(packed)
    want = results(module, x, "naive")
    torch.testing.assert_close(results(module, x, "auto"), want)
    tried = kernels.calls
    torch.testing.assert_close(results(module, x, "auto"), want)
    assert kernels.calls - tried == (4 if ours < 2 else 0)  # two layers, two directions
    layers = [text for text in calibration.in_force() if text.startswith("layer")]
    name = module.mode
    assert begin(layers, [f"layer {name} both directions, {n} x 8, " for n in (D, 2 * H)])
    monkeypatch.setattr(layer, "chosen", None)  # evaluation does not ask
    results(module.eval(), x, "auto")


def test_a_recurrence_whose_kernels_are_wrong(
    fake_card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the first state alone: what is compared are all results, and every gradient."""
    module, x = StructuredLSTM(D, H, recurrent_dropout=0.5).double(), inputs(False)
    want = results(module, x, "naive")

    def wrong(operands: loop.Operands) -> Any:
        y, (h, c) = loop.recurrence(operands)
        return y, (h, c * 1.001)

    monkeypatch.setattr(faster, "triton_for", lambda _: wrong)
    monkeypatch.setattr(faster, "DTYPES", (torch.float64,))
    monkeypatch.setattr("opennmt_sd.ops.calibration.key.tf32", lambda: ("ieee", "ieee"))
    torch.testing.assert_close(results(module, x, "auto"), want)
    assert "WrongResultError: results differ by" in caplog.text


def test_without_triton_nothing_is_tried(
    fake_card, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    module, x = StructuredLSTM(D, H, recurrent_dropout=0.5).double(), inputs(False)
    faster._tell_of_loop.cache_clear()
    results(module, x, "auto")
    assert not recwarn.list  # Triton would not help in float64
    monkeypatch.setattr(faster, "DTYPES", (torch.float64,))
    with pytest.warns(RuntimeWarning, match="step by step on cpu: Triton, .* cannot be used"):
        results(module, x, "auto")
    assert (fake_card.marks, calibration.in_force()) == (0, {})


@pytest.mark.parametrize(
    ("module", "card", "why"),
    [
        (ImportError("No module named 'triton'"), (8, 0), "ImportError: No module named 'triton'"),
        (AttributeError("no attribute 'jit'"), (8, 0), "AttributeError: no attribute 'jit'"),
        (SimpleNamespace(__version__="3.2.0"), (8, 0), "(it is 3.2.0, and 3.3 or newer is needed)"),
        (SimpleNamespace(__version__="3.10.1+git1", recurrence=None), (6, 1), "capability of 7.0"),
    ],
)
def test_why_triton_cannot_be_used(monkeypatch, module: object, card: Any, why: str) -> None:
    def load(_: str) -> object:
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(faster, "import_module", load)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card)
    for cached in (faster._loaded, faster._capable, faster._tell_of_loop):
        cached.cache_clear()
    with pytest.warns(RuntimeWarning, match=re.escape(why)):
        assert faster.triton_for(torch.device("cuda")) is None
    faster._loaded.cache_clear()
    faster._capable.cache_clear()


@pytest.mark.parametrize("name", ["linear", "LSTM", "vocabulary"])
def test_a_forced_engine_is_not_timed(fake_card, monkeypatch, name: str) -> None:
    Kernels(monkeypatch)
    for engine in ("dense", "portable", "naive"):
        results(GATHER[name][0]().double(), inputs(False), engine)
        results(RECURRENT["LSTM"][0]().double(), inputs(False), engine)
    assert (fake_card.marks, calibration.in_force()) == (0, {})


@pytest.mark.parametrize("name", GATHER)
def test_evaluation_is_not_timed(fake_card, name: str) -> None:
    module = GATHER[name][0]().double().eval()
    results(module, inputs(False), "auto")
    assert (fake_card.marks, calibration.in_force()) == (0, {})


def test_other_patterns_are_not_timed(fake_card) -> None:
    """A set a step cannot be gathered, nor one for each sample."""
    for pattern in (DropoutPattern(0.5), DropoutPattern(0.5, "random", "fixed"), 0.0):
        results(MaskedLinear(D, H, dropout=pattern).double(), inputs(False), "auto")
        results(StructuredLSTM(D, H, input_dropout=pattern).double(), inputs(False), "auto")
    assert (fake_card.marks, calibration.in_force()) == (0, {})


def test_sets_that_are_given(fake_card) -> None:
    module, x = StructuredLSTM(D, H).double(), inputs(False)
    keep = FIXED.draw(T, B, D)
    with ops.use("naive"):
        want = module(x, input_keep=keep)[0]
    torch.testing.assert_close(module(x, input_keep=keep)[0], want)
    (text,) = calibration.in_force()
    assert text.startswith("gathered LSTM, 10 x 8, T 4-7, B 4-7, 0.5 kept")


@pytest.mark.parametrize("rule", [0, 10**9])
def test_switched_off_size_decides(fake_card, monkeypatch, rule: int) -> None:
    from opennmt_sd.ops import engines

    for kind in engines.GATHERED:
        monkeypatch.setitem(engines.GATHERED, kind, rule)
    module, x = GATHER["linear"][0]().double(), inputs(False)
    want = results(module, x, "naive")
    with ops.calibrate(False):
        torch.testing.assert_close(results(module, x, "auto"), want)
        assert list(calibration.in_force().values()) == [rule == 0]
    assert fake_card.marks == 0


def test_under_autocast(fake_card) -> None:
    module = MaskedLinear(D, H, dropout=FIXED)
    x = torch.randn(T, B, D, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    y.float().sum().backward()
    (text,) = calibration.in_force()
    assert "float32 as bfloat16" in text
    assert fake_card.cleaned == 0


def test_a_cpu_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a fake card: not even what could be asked."""
    from opennmt_sd.ops import gathering

    monkeypatch.setattr(gathering, "chosen", None)
    monkeypatch.setattr(faster, "chosen", None)
    monkeypatch.setattr(layer, "chosen", None)
    for make, _ in (*GATHER.values(), *RECURRENT.values()):
        results(make(), inputs(False).float().detach().requires_grad_(), "auto")
