"""torch knows the ops: their schemas, gradients and fakes hold, and compiled models run them."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import opennmt_sd
from opennmt_sd import DropoutPattern, MaskedLinear, StructuredLSTM
from opennmt_sd.compat import KNOWS_OPS
from opennmt_sd.ops.cpu import kernels

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.skipif(not KNOWS_OPS, reason="custom ops need torch 2.4"),
]

T, B, D, N = 3, 4, 5, 6

ops = torch.ops.opennmt_sd
PACKED = 3, torch.tensor([4, 3, 1])  # steps, and the rows of each


def check(op, *leaves: object) -> None:
    torch.library.opcheck(op.default, leaves)


# opcheck takes half a second: a dtype goes with another choice, which has nothing to do with it.
layers = pytest.mark.parametrize(
    ("of_x", "of_h", "reverse", "dtype"),
    [
        ("random", "mask", False, torch.float32), ("fixed", "random", True, torch.float64),
        ("none", "none", False, torch.float64), ("mask", "none", True, torch.float32),
    ],
)  # fmt: skip


def sets(kind: str) -> tuple[Tensor | None, Tensor | None, float, Tensor | None]:
    """idx, counts, scale, mask."""
    if kind == "none":
        return None, None, 1.0, None
    if kind == "mask":
        return None, None, 2.0, DropoutPattern(0.5, space="random").draw(T, B, D).mask()
    keep = DropoutPattern(0.5, time=kind).draw(T, B, D)
    return keep.idx, keep.count, keep.scale, None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bias", "dtype"), [("random", True, torch.float32), ("fixed", False, torch.float64)],
    ids=["random, bias, f32", "fixed, no bias, f64"],
)  # fmt: skip
def test_linear(kind: str, bias: bool, dtype: torch.dtype) -> None:
    rows = (T, None) if bias else PACKED
    R = T * B if bias else 8
    x, weight, b, dy = (torch.randn(s, dtype=dtype) for s in ((R, D), (N, D), N, (R, N)))
    given = *sets(kind), *rows, False
    leaves = [x.requires_grad_() for x in (x.clone(), weight.clone(), b)]
    check(ops.linear_fp, *leaves[:2], leaves[2] if bias else None, *given)
    check(ops.linear_bp, dy, weight, *given)
    check(ops.linear_wg, x, dy, *given)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("random", torch.float32), ("none", torch.float64)],
    ids=["random, f32", "none, f64"],
)  # fmt: skip
def test_steps(kind: str, dtype: torch.dtype) -> None:
    idx, counts, scale, _ = sets(kind)
    one, two = (
        (None, None, scale, None) if idx is None else (idx[:n], counts[:n], scale, None)
        for n in (1, 2)
    )
    packed = kernels.prepare(torch.randn(N, D, dtype=dtype))
    x, dy = torch.randn(B, D, dtype=dtype), torch.randn(B, N, dtype=dtype)
    check(ops.step_fp, x, packed, N, None, *one)
    check(ops.step_bp, dy, packed, D, *one)
    check(ops.steps_wg, [x, x], [dy, dy], *two, False)


@pytest.mark.slow
@layers
def test_layer(of_x: str, of_h: str, reverse: bool, dtype: torch.dtype) -> None:
    given = *sets(of_x), *sets(of_h), *PACKED, reverse, False
    shapes = (8, D), (4 * D, D), (4 * D,), (4 * D, D), (B, D), (B, D)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    check(ops.layer_fp, *leaves, *given)
    hidden, h, c, gates, cells = (x.detach() for x in ops.layer_fp(*leaves, *given))
    x, w_ih, b, w_hh, h0, c0 = (leaf.detach() for leaf in leaves)
    if reverse:
        check(ops.layer_fp, x, w_ih, None, w_hh, h0, c0, *given)
    needs = [False, True, False, True] if reverse else [True] * 4
    layer = x, w_ih, b, w_hh, h0, c0, *given
    check(ops.layer_bp, hidden, h, c, *layer, hidden, gates, cells, *needs)


@pytest.mark.slow
@layers
def test_gru_layer(of_x: str, of_h: str, reverse: bool, dtype: torch.dtype) -> None:
    given = *sets(of_x), *sets(of_h), *PACKED, reverse, False
    shapes = (8, D), (3 * D, D), (3 * D,), (3 * D, D), (D,), (B, D)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    check(ops.gru_layer_fp, *leaves, *given)
    hidden, h, gates = (x.detach() for x in ops.gru_layer_fp(*leaves, *given))
    x, w_ih, b, w_hh, b_hn, h0 = (leaf.detach() for leaf in leaves)
    if reverse:
        check(ops.gru_layer_fp, x, w_ih, None, w_hh, None, h0, *given)
    needs = [False, True, False, True, False] if reverse else [True] * 5
    check(ops.gru_layer_bp, hidden, h, x, w_ih, b, w_hh, b_hn, h0, *given, hidden, gates, *needs)


class Model(nn.Module):
    """Wide enough that the layers are compacted, not torch's own on a masked input."""

    def __init__(self, space: str) -> None:
        super().__init__()
        drop = DropoutPattern(0.5, space)
        self.lstm = StructuredLSTM(64, 64, 2, input_dropout=drop, dropout=drop,
                                   recurrent_dropout=drop)  # fmt: skip
        self.out = MaskedLinear(64, 450, dropout=drop)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.out(self.lstm(x)[0]))


def results(model: nn.Module, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), parameters)]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "whole"), [("structured", True), ("random", False)])
def test_a_compiled_model_computes_the_same(space: str, whole: bool) -> None:
    """In one graph, draws included, where torch is told to take nn.LSTM's kin (allow_rnn), with
    the sets that the same seed gives without the compiler; and with torch's own settings, which
    break the graph there."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = Model(space), torch.randn(7, 80, 64)
    parameters = list(model.parameters())
    want = results(model, x, parameters)
    with torch._dynamo.config.patch(allow_rnn=whole):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=whole)
        got, again = (results(compiled, x, parameters) for _ in range(2))
    for ours, eager in zip(got, want):
        torch.testing.assert_close(ours, eager)
    assert all(torch.equal(a, b) for a, b in zip(again, got))


def test_a_call_looks_up_no_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch does for gradients that are registered, and for functions whose context is set apart:
    a third of a small layer's time."""

    def slow(*_: object, **__: object) -> object:
        raise AssertionError("each argument's default was looked up")

    monkeypatch.setattr(torch._library.utils, "fill_defaults", slow)
    monkeypatch.setattr(inspect, "signature", slow)
    x, weight = torch.randn(T, B, D), torch.randn(N, D, requires_grad=True)
    y = opennmt_sd.ops.masked_linear(x, None, weight)
    (dw,) = torch.autograd.grad(y.sum(), weight)
    torch.testing.assert_close(dw, x.sum((0, 1)).expand(N, D))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_a_trace_holds_the_op() -> None:
    """And not a call of Python's, which could not be saved."""
    keep = DropoutPattern(0.5).draw(T, B, D)

    def project(x: Tensor, weight: Tensor) -> Tensor:
        return opennmt_sd.ops.masked_linear(x, keep, weight)

    given = torch.randn(T, B, D), torch.randn(N, D, requires_grad=True)
    traced = torch.jit.trace(project, given, check_trace=False)
    assert "opennmt_sd::linear_fp" in str(traced.graph)
    torch.testing.assert_close(traced(*given), project(*given))


@pytest.mark.parametrize("before", [False, True], ids=["at dispatch", "before it"])
def test_a_graph_holds_the_op(before: bool) -> None:
    keep, weight = DropoutPattern(0.5).draw(T, B, D), torch.randn(N, D)

    def project(x: Tensor) -> Tensor:
        return opennmt_sd.ops.masked_linear(x, keep, weight)

    graph = make_fx(project, pre_dispatch=before, _allow_non_fake_inputs=True)(torch.zeros(T, B, D))
    x = torch.randn(T, B, D)
    assert torch.equal(graph(x), project(x))
