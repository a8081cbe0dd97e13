"""Mixed and half precision: the dtypes are torch's, and what has no kernels is no slower."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
    ops,
)
from opennmt_sd.nn.precision import engine_of
from opennmt_sd.ops.cpu import bfloat16

T, B, D, H = 5, 3, 4, 6
NO_BFLOAT16 = "float32 (bfloat16 is no faster on this processor)"
RATES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "input": {"input_dropout": 0.5},
    "between": {"dropout": 0.5},
    "state": {"recurrent_dropout": 0.5},
    "random": {"input_dropout": DropoutPattern(0.5, "random"), "recurrent_dropout": 0.5},
}
every_rate = pytest.mark.parametrize("places", RATES.values(), ids=RATES.keys())


def autocast() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def half_lstm() -> None:
    """Torch 2.2 has no LSTM of bfloat16 on a processor that does not know it."""
    try:
        nn.LSTM(D, H).bfloat16()(torch.randn(T, B, D).bfloat16())
    except RuntimeError as error:
        pytest.skip(f"torch's own LSTM fails in bfloat16 on this machine: {error}")


def packed(x: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, torch.tensor([2, 5, 1]), enforce_sorted=False)


@pytest.mark.usefixtures("half_lstm")
@every_rate
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [None, torch.float32], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_under_autocast(
    places: dict[str, Any], training: bool, given: torch.dtype, state: torch.dtype | None,
    layers: int,
) -> None:  # fmt: skip
    """All results have autocast's dtype, and gradients are the weights'."""
    places = {k: p for k, p in places.items() if layers > 1 or k != "dropout"}
    lstm = StructuredLSTM(D, H, layers, bidirectional=True, **places).train(training)
    hx = None if state is None else tuple(torch.randn(2 * layers, B, H, dtype=state) for _ in "hc")
    with autocast():
        y, (h, c) = lstm(torch.randn(T, B, D).to(given), hx)
    assert {y.dtype, h.dtype, c.dtype} == {torch.bfloat16}
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in lstm.parameters())


@every_rate
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_gru_under_autocast(
    places: dict[str, Any], training: bool, given: torch.dtype, state: torch.dtype | None,
    layers: int,
) -> None:  # fmt: skip
    """Torch's autocast knows none on a CPU: it lowers the products, and the state decides."""
    places = {k: p for k, p in places.items() if layers > 1 or k != "dropout"}
    gru = StructuredGRU(D, H, layers, bidirectional=True, **places).train(training)
    hx = None if state is None else torch.randn(2 * layers, B, H, dtype=state)
    x = torch.randn(T, B, D).to(given)
    with autocast():
        y, h = gru(x, hx)
        want, h2 = nn.GRU(D, H, layers, bidirectional=True)(x, hx)
    assert [y.dtype, h.dtype] == [want.dtype, h2.dtype]
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in gru.parameters())


@every_rate
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "inexact"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [None, torch.float32], ids=str)
def test_packed_rows_under_autocast(
    kind, places: dict[str, Any], exact: bool, training: bool, given: torch.dtype,
    state: torch.dtype | None,
) -> None:  # fmt: skip
    """In every mode as torch has it, for which the state decides."""
    layer = kind.ours(D, H, 2, **places).train(training)
    layer.exact = exact
    x = packed(torch.randn(T, B, D).to(given))
    hx = None
    if state is not None:
        hx = kind.hx([torch.randn(2, B, H, dtype=state) for _ in kind.states])
    with autocast():
        (y, got), (want, wanted) = layer(x, hx), kind.stock(D, H, 2)(x, hx)
    assert y.data.dtype == want.data.dtype
    assert [t.dtype for t in kind.parts(got)] == [t.dtype for t in kind.parts(wanted)]
    y.data.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("multiplied", ["float32", "bfloat16"])
def test_packed_rows_keep_float32_under_autocast(kind, multiplied: str) -> None:
    """Which leaves their dtype alone, and lowers products where the processor multiplies so."""
    if multiplied == "float32" and bfloat16.known():
        pytest.skip("this processor multiplies in bfloat16")
    layer = kind.ours(D, H, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    x = packed(torch.randn(T, B, D))
    torch.manual_seed(7)
    want, _ = layer(x)
    torch.manual_seed(7)
    with autocast(), nullcontext() if multiplied == "float32" else bfloat16.emulated():
        got, _ = layer(x)
    assert got.data.dtype == torch.float32
    if multiplied == "float32":
        torch.testing.assert_close(got.data, want.data)
    else:
        assert 1e-4 < (got.data - want.data).abs().max() < 0.05


HALF: dict[str, Callable[..., nn.Module]] = {
    "lstm": lambda **k: StructuredLSTM(D, H, 2, dropout=0.5, input_dropout=0.5,
                                       recurrent_dropout=0.5, **k),
    "gru": lambda **k: StructuredGRU(D, H, 2, dropout=0.5, input_dropout=0.5,
                                     recurrent_dropout=0.5, **k),
    "cell": lambda **k: StructuredLSTMCell(D, H, input_dropout=0.5, recurrent_dropout=0.5, **k),
    "gru cell": lambda **k: StructuredGRUCell(D, H, input_dropout=0.5, recurrent_dropout=0.5, **k),
    "linear": lambda **k: MaskedLinear(D, H, dropout=0.5, **k),
    "dropout": lambda **_: StructuredDropout(0.5),
}  # fmt: skip


@pytest.mark.parametrize("build", HALF.values(), ids=HALF.keys())
@pytest.mark.parametrize("how", ["autocast", "module.to"])
def test_half_precision_drops_the_same(build: Callable[..., nn.Module], how: str) -> None:
    """The sets do not depend on the precision, and results agree as far as bfloat16 reaches."""
    module = build()
    x = torch.randn(B, D) if isinstance(module, nn.RNNCellBase) else torch.randn(T, B, D)
    torch.manual_seed(7)
    want = module(x)
    torch.manual_seed(7)
    if how == "autocast":
        with autocast():
            got = module(x)
    else:
        got = module.to(torch.bfloat16)(x.to(torch.bfloat16))
    got, want = (y[0] if isinstance(y, tuple) else y for y in (got, want))
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


def test_half_precision_is_kept(kind) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        layer = HALF[kind.stock.__name__.lower()](dtype=dtype)
        y, hx = layer(torch.randn(T, B, D, dtype=dtype))
        assert {t.dtype for t in (y, *kind.parts(hx))} == {dtype}
        y.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in layer.parameters())


@pytest.mark.parametrize("name", ["a state", "an input"])
def test_what_autocast_does_not_know_is_refused(kind, name: str) -> None:
    """Wider than the weights: torch refuses it as well."""
    layer = HALF[kind.stock.__name__.lower()]()
    x, h = torch.randn(T, B, D), torch.randn(2, B, H)
    if name == "a state":
        h = h.double()
    else:
        x = x.double()
    for context in (torch.autocast("cpu", enabled=False), autocast()):
        with pytest.raises((ValueError, RuntimeError)), context:
            layer(x, kind.hx([h] * len(kind.states)))


class Calls:
    """Which of the ops run: none may, where torch's own are as good."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.dtypes: list[torch.dtype] = []
        for name in ("masked_linear", "lstm_layer", "gru_layer"):
            real = getattr(ops, name)
            patch.setattr(ops, name, self._recorded(real))

    def _recorded(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def op(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.dtypes.append(x.dtype)
            return real(x, *args, **kwargs)

        return op


def test_what_has_no_kernels_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense product behind a mask, in one call; but recurrent dropout, for which torch has no
    call, runs on the kernels of float32."""
    calls, dtype = Calls(monkeypatch), torch.float16
    x = torch.randn(20, 40, 200, dtype=dtype)
    try:
        nn.LSTM(200, 32, dtype=dtype)(x)
    except RuntimeError as error:
        pytest.skip(f"torch's own LSTM fails in float16: {error}")
    for module in (
        StructuredLSTM(200, 32, input_dropout=0.5, dtype=dtype),
        MaskedLinear(200, 32, dtype=dtype),
        StructuredGRU(200, 32, input_dropout=0.5, dtype=dtype),
    ):
        y = module(x)
        assert (y[0] if isinstance(y, tuple) else y).dtype == dtype
    StructuredLSTMCell(200, 32, recurrent_dropout=0.5, dtype=dtype)(x[0])
    StructuredGRUCell(200, 32, recurrent_dropout=0.5, dtype=dtype)(x[0])
    assert calls.dtypes == []
    y, _ = StructuredLSTM(200, 32, recurrent_dropout=0.5, dtype=dtype)(x)
    assert y.dtype == dtype
    StructuredGRU(200, 32, recurrent_dropout=0.5, dtype=dtype)(x)
    assert calls.dtypes == [torch.float32 if ops.engine_for() == "cpu" else dtype] * 2


@pytest.mark.skipif(ops.engine_for() != "cpu", reason="the native module was not built")
@pytest.mark.parametrize("how", ["autocast", "module.to"])
def test_bfloat16_runs_on_kernels(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is cast on the way to them."""
    calls = Calls(monkeypatch)
    dtype = torch.float32 if how == "autocast" else torch.bfloat16
    x = torch.randn(20, 40, 200, dtype=dtype, requires_grad=True)
    for module in (
        StructuredLSTM(200, 128, input_dropout=0.5, recurrent_dropout=0.5, dtype=dtype),
        MaskedLinear(200, 512, dtype=dtype),
        StructuredGRU(200, 176, input_dropout=0.5, dtype=dtype),
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            y = module(x)
        y = y[0] if isinstance(y, tuple) else y
        known = how == "module.to" or not isinstance(module, nn.GRU)  # to autocast
        assert y.dtype == (torch.bfloat16 if known else torch.float32)
        y.float().sum().backward()
        assert {p.grad.dtype for p in module.parameters()} == {dtype}
    assert calls.dtypes == [dtype] * 3


def test_a_masked_linear_without_kernels_is_a_masked_nn_linear() -> None:
    linear = MaskedLinear(D, H, dtype=torch.bfloat16)
    x = torch.randn(T, B, D, dtype=torch.bfloat16, requires_grad=True)
    keep = DropoutPattern(0.5).draw(T, B, D)
    got, want = linear(x, keep), F.linear(keep.apply(x), linear.weight, linear.bias)
    assert torch.equal(got, want)
    leaves = [x, *linear.parameters()]
    for a, b in zip(*(torch.autograd.grad(y.float().sum(), leaves) for y in (got, want))):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"^keep sets of width 5 do not fit"):
        linear(x, DropoutPattern(0.5).draw(T, B, D + 1))


def test_the_engine_is_named_as_it_runs() -> None:
    """Under autocast, the one of autocast's dtype."""
    plain = ops.engine_for("cpu", torch.float32)
    with autocast():
        assert ops.engine_for("cpu", torch.float32) == plain
        assert ops.engine_for("cpu") == ops.engine_for("cpu", torch.bfloat16) == plain
        assert ops.engine_for("cpu", torch.float64) == plain, "autocast leaves it"
        with ops.use("naive"):
            assert ops.engine_for("cpu") == "naive"
    assert ops.engine_for("cpu", torch.float32) == plain


def test_what_a_log_says_of_a_model() -> None:
    """The engine and the dtype that run, asked under the autocast of the run."""
    model = StructuredLSTM(D, H, recurrent_dropout=0.5)
    here = ops.engine_for("cpu", torch.float32)
    recurrent = ", recurrent dropout on cpu in float32" if here == "cpu" else ""
    assert engine_of(model) == here
    with autocast():
        multiplied = f", products in {'bfloat16' if bfloat16.known() else NO_BFLOAT16}"
        assert engine_of(model) == f"{here} in bfloat16" + multiplied * (here == "cpu")
        with ops.use("naive"):
            assert engine_of(model) == "naive in bfloat16"
    assert engine_of(model.to(torch.float16)) == "portable in float16" + recurrent
    assert engine_of(model.double()) == f"{here} in float64"
    assert engine_of(nn.Identity()) == here, "of no parameters"


@pytest.mark.usefixtures("half_lstm")
@every_rate
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "inexact"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [None, torch.float32], ids=str)
def test_packed_rows_of_one_length_under_autocast(
    kind, places: dict[str, Any], exact: bool, training: bool, given: torch.dtype,
    state: torch.dtype | None,
) -> None:  # fmt: skip
    """As rows of several lengths, though torch's own LSTM takes them for padded ones, and fails."""
    layer = kind.ours(D, H, 2, **places).train(training)
    layer.exact = exact
    x = pack_padded_sequence(torch.randn(T, B, D).to(given), [T] * B)
    initial = None if state is None else [torch.randn(2, B, H, dtype=state) for _ in kind.states]
    hx = None if initial is None else kind.hx(initial)
    torch.manual_seed(7)
    with autocast():
        y, got = layer(x, hx)
    assert {y.data.dtype, *(t.dtype for t in kind.parts(got))} == {state or given}
    y.data.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())
    torch.manual_seed(7)
    whole = PackedSequence(x.data.float(), x.batch_sizes)
    want, _ = layer(whole, hx)
    torch.testing.assert_close(y.data.float(), want.data, atol=0.03, rtol=0.03)


def test_a_batch_of_one_packed_sentence_under_autocast() -> None:
    """What a tagger predicts one sentence at a time is."""
    layer = StructuredLSTM(D, H, bidirectional=True, input_dropout=0.5).eval()
    x = pack_padded_sequence(torch.randn(1, 1, D), [1])
    with autocast():
        y, _ = layer(x)
    torch.testing.assert_close(y.data, layer(x)[0].data, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", ["naive", "dense", "portable", "auto"])
def test_a_cell_gives_its_states_dtype_under_autocast(kind, name: str) -> None:
    """On every engine, as torch's own, which autocast does not know."""
    cell = kind.our_cell(D, H, input_dropout=0.5, recurrent_dropout=0.5)
    with autocast(), nullcontext() if name == "auto" else ops.use(name):
        got = kind.parts(cell(torch.randn(B, D)))
        want = kind.parts(kind.stock_cell(D, H)(torch.randn(B, D)))
    assert [s.dtype for s in got] == [s.dtype for s in want]


@pytest.mark.parametrize("lengths", [[T] * B, [T, 2, 1]], ids=str)
def test_packed_rows_take_the_dtype_of_c(lengths: list[int]) -> None:
    """Of h and c that differ, torch's cell gives c's."""
    layer = StructuredLSTM(D, H, input_dropout=0.5).eval()
    x = pack_padded_sequence(torch.randn(T, B, D), lengths)
    h, c = torch.randn(1, B, H), torch.randn(1, B, H, dtype=torch.bfloat16)
    with autocast():
        y, final = layer(x, (h, c))
        cells = [cell(x.data[:B], (h[0], c[0])) for cell in (
            nn.LSTMCell(D, H), StructuredLSTMCell(D, H, recurrent_dropout=0.5),
        )]  # fmt: skip
        with ops.use("portable"):
            cells.append(StructuredLSTMCell(D, H, recurrent_dropout=0.5)(x.data[:B], (h[0], c[0])))
    for states in [(y.data, *final), *cells]:
        assert {s.dtype for s in states} == {torch.bfloat16}
