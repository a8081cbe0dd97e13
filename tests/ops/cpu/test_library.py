"""torch knows the ops: their schemas, gradients and fakes hold, and compiled models run them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, MaskedLinear, StructuredLSTM
from opennmt_sd.ops.cpu import engine
from opennmt_sd.ops.cpu.library import CUSTOM_OPS

pytestmark = [
    pytest.mark.usefixtures("native"),
    pytest.mark.skipif(not CUSTOM_OPS, reason="custom ops need torch 2.4"),
]

T, B, D, N = 3, 4, 5, 6

# opcheck takes half a second: a dtype goes with another choice, which has nothing to do with it.
directions = pytest.mark.parametrize(
    ("reverse", "dtype"), [(False, torch.float32), (True, torch.float64)],
    ids=["forward, f32", "reverse, f64"],
)  # fmt: skip


def sets(kind: str) -> tuple[Tensor | None, Tensor | None, Tensor | None, float]:
    """idx, count, mask, scale."""
    if kind == "none":
        return None, None, None, 1.0
    if kind == "mask":
        return None, None, DropoutPattern(0.5, space="random").draw(T, B, D).mask(), 2.0
    keep = DropoutPattern(0.5, time=kind).draw(T, B, D)
    return keep.idx, keep.count, None, keep.scale


@pytest.mark.parametrize("kind", ["random", "fixed"])
@pytest.mark.parametrize(
    ("bias", "dtype"), [(True, torch.float32), (False, torch.float64)],
    ids=["bias, f32", "no bias, f64"],
)  # fmt: skip
def test_linear(kind: str, bias: bool, dtype: torch.dtype) -> None:
    idx, count, _, scale = sets(kind)
    x, weight, b, dy = (torch.randn(s, dtype=dtype) for s in ((T * B, D), (N, D), N, (T * B, N)))
    given = idx, count, scale, [B] * T
    leaves = [x.requires_grad_() for x in (x.clone(), weight.clone(), b)]
    torch.library.opcheck(engine.linear_fp, (*leaves[:2], leaves[2] if bias else None, *given))
    torch.library.opcheck(engine.linear_bp, (dy, weight, *given))
    torch.library.opcheck(engine.linear_wg, (x, dy, *given))


@pytest.mark.parametrize("kind", ["random", "fixed", "mask", "none"])
@directions
def test_recurrence(kind: str, reverse: bool, dtype: torch.dtype) -> None:
    given = *sets(kind), [4, 3, 1], reverse  # packed
    shapes = (8, 4 * D), (4 * D, D), (B, D), (B, D)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    torch.library.opcheck(engine.recurrence_fp, (*leaves, *given))
    hidden, h, c, gates, cells = (x.detach() for x in engine.recurrence_fp(*leaves, *given))
    _, weight, h0, c0 = (x.detach() for x in leaves)
    torch.library.opcheck(engine.recurrence_bp, (hidden, h, c, weight, c0, gates, cells, *given))
    torch.library.opcheck(engine.recurrence_wg, (hidden, h0, gates, *given))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("random", torch.float32), ("none", torch.float64)],
    ids=["random, f32", "none, f64"],
)  # fmt: skip
def test_steps(kind: str, dtype: torch.dtype) -> None:
    idx, count, _, scale = sets(kind)
    one = (idx[:1], count[:1], scale) if idx is not None else (None, None, scale)
    all_ = (idx[:2], count[:2], scale) if idx is not None else (None, None, scale)
    packed = engine.kernels.prepare(torch.randn(N, D, dtype=dtype))
    x, dy = torch.randn(B, D, dtype=dtype), torch.randn(B, N, dtype=dtype)
    torch.library.opcheck(engine.step_fp, (x, packed, N, None, *one))
    torch.library.opcheck(engine.step_bp, (dy, packed, D, *one))
    torch.library.opcheck(engine.steps_wg, ([x, x], [dy, dy], *all_))


@pytest.mark.parametrize(("of_x", "of_h"), [("random", "mask"), ("fixed", "random")])
@directions
def test_layer(of_x: str, of_h: str, reverse: bool, dtype: torch.dtype) -> None:
    x_idx, x_count, _, x_scale = sets(of_x)
    h_idx, h_count, h_mask, h_scale = sets(of_h)
    given = x_idx, x_count, x_scale, h_idx, h_count, h_scale, h_mask, [4, 3, 1], reverse  # packed
    shapes = (8, D), (4 * D, D), (4 * D,), (4 * D, D), (B, D), (B, D)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    torch.library.opcheck(engine.layer_fp, (*leaves, *given))
    hidden, h, c, gates, cells = (x.detach() for x in engine.layer_fp(*leaves, *given))
    x, w_ih, _, w_hh, h0, c0 = (leaf.detach() for leaf in leaves)
    if reverse:
        torch.library.opcheck(engine.layer_fp, (x, w_ih, None, w_hh, h0, c0, *given))
    backward = hidden, h, c, x, w_ih, w_hh, h0, c0, hidden, gates, cells, *given
    needs = [False, True, False, True] if reverse else [True] * 4
    torch.library.opcheck(engine.layer_bp, (*backward, needs))


class Model(nn.Module):
    """Wide enough that the layers are compacted, not torch's own on a masked input."""

    def __init__(self, space: str) -> None:
        super().__init__()
        drop = DropoutPattern(0.5, space)
        self.lstm = StructuredLSTM(64, 64, 2, input_dropout=drop, dropout=drop,
                                   recurrent_dropout=drop)  # fmt: skip
        self.out = MaskedLinear(64, 10, dropout=drop)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.out(self.lstm(x)[0]))


def results(model: nn.Module, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), parameters)]


@pytest.mark.slow
@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("whole", [True, False], ids=["one graph", "as torch does"])
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
