"""Mixed precision: dtypes go in and out as with torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import ops

KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered", None]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
lowered = pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float64],
    ids=["float32", "bfloat16", "float64"],
)


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def outcome(layer, *given: Tensor) -> list[torch.dtype]:
    """The dtypes of what a layer gives, and of the gradients of what it was given."""
    leaves = [t.detach().clone().requires_grad_() for t in given]
    with autocast():
        y = layer(*leaves)
    outputs = y if isinstance(y, tuple) else (y,)
    sum(o.float().sum() for o in outputs).backward()
    return [t.dtype for t in outputs] + [leaf.grad.dtype for leaf in leaves]


def torch_lstm_runs() -> bool:
    """Return whether torch's own LSTM has bfloat16 on this processor (oneDNN wants AVX-512)."""
    try:
        with autocast():
            nn.LSTM(6, 5)(torch.zeros(4, 3, 6))
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        return False
    return True


@every_kind
@lowered
def test_masked_linear_is_like_linear(any_engine: str, kind, dtype: torch.dtype, draw) -> None:
    given = [torch.randn(s, dtype=dtype) for s in ((4, 3, 6), (5, 6), (5,))]
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 6)
    want = outcome(nn.functional.linear, *given)
    assert outcome(lambda x, w, b: ops.masked_linear(x, keep, w, b), *given) == want


@every_kind
def test_lstm_is_like_lstm(any_engine: str, kind, draw) -> None:
    """In float32; float64 is left as it is, which torch's own LSTM has no rule for on a CPU."""
    torch_lstm = nn.LSTM(6, 5)
    weights = [w.detach() for w in torch_lstm.parameters()]
    given = torch.randn(4, 3, 6), torch.zeros(3, 5), torch.zeros(3, 5), *weights
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)

    def theirs(x, h, c, *weights):
        y, h, c = torch._VF.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, True, False, False)
        return y, h[0], c[0]

    def layer(x, h, c, w_ih, w_hh, b_ih, b_hh):
        return ops.lstm_layer(x, None, w_ih, b_ih + b_hh, w_hh, h, c, keep)

    want = [torch.bfloat16] * 3 + [torch.float32] * len(given)
    if torch_lstm_runs():
        assert outcome(theirs, *given) == want
    assert outcome(layer, *given) == want


@every_kind
def test_gru_is_like_lstm(any_engine: str, kind, draw) -> None:
    """Torch's autocast knows no GRU on a CPU, where its products alone are lowered."""
    shapes = (4, 3, 6), (15, 6), (15,), (15, 5), (5,), (3, 5)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)

    def layer(x, *given):
        return ops.gru_layer(x, None, *given, keep)

    want = [torch.bfloat16] * 2 + [torch.float32] * len(shapes)
    assert outcome(layer, *(torch.randn(s) for s in shapes)) == want


@every_kind
def test_a_step_is_like_linear(any_engine: str, kind, draw) -> None:
    given = [torch.randn(s) for s in ((3, 6), (5, 6), (5,))]
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 6)

    def step(x, w, b):
        return ops.masked_linear_step(ops.prepare(w, b), x, keep, 1)

    assert outcome(step, *given) == outcome(nn.functional.linear, *given)


def test_gates_of_a_step_and_a_float32_cell(any_engine: str) -> None:
    """Gates come lowered from the products, the first cell does not: the cell's dtype wins."""
    gates, c = torch.randn(3, 20).bfloat16(), torch.randn(3, 5)
    assert outcome(ops.lstm_gates, gates, c) == [torch.float32] * 2 + [
        torch.bfloat16,
        torch.float32,
    ]


@pytest.mark.parametrize("gates", [torch.float32, torch.float64], ids=str)
def test_gates_and_a_cell_of_two_dtypes(any_engine: str, gates: torch.dtype) -> None:
    """Without autocast too: the wider one wins, and each gradient has its input's."""
    other = {torch.float32: torch.float64, torch.float64: torch.float32}[gates]
    given = torch.randn(3, 20, dtype=gates), torch.randn(3, 5, dtype=other)
    assert outcome(ops.lstm_gates, *given) == [torch.float64] * 2 + [gates, other]


def test_gates_of_a_gru_and_a_float32_state(any_engine: str) -> None:
    """The state, which the products alone have lowered, stays as wide as it is."""
    given = torch.randn(3, 15).bfloat16(), torch.randn(3, 15).bfloat16(), torch.randn(3, 5)
    assert outcome(ops.gru_gates, *given) == [torch.float32] + [t.dtype for t in given]


def test_no_data_no_autocast(any_engine: str) -> None:
    """On the meta device, where a model is built before its weights are there."""
    x, weight = (torch.randn(*shape, device="meta") for shape in ((4, 3, 6), (5, 6)))
    y = ops.masked_linear(x, None, weight)
    assert (y.shape, y.device.type) == ((4, 3, 5), "meta")


@every_kind
def test_values(any_engine: str, kind, draw, compare) -> None:
    """What autocast computes is what the lowered inputs give, sums in float32; the kernels lower
    what they multiply and no bias, where the processor can."""
    x, weight = torch.randn(4, 3, 6), torch.randn(5, 6)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 6)
    with autocast():
        y = ops.masked_linear(x, keep, weight)
    want = ops.masked_linear(x.bfloat16(), keep, weight.bfloat16())
    assert y.dtype == want.dtype == torch.bfloat16
    rounded = 2**-6 if any_engine == "cpu" else 0
    compare({"y": y}, {"y": want}, rtol=rounded, atol=2 * rounded)


def test_the_backward_pass_is_lowered_too(engine: str, draw, compare) -> None:
    """As in torch, the backward pass runs outside autocast, on what the forward pass lowered."""
    given = [torch.randn(s) for s in ((4, 3, 6), (5, 6))]
    keep = draw("structured", 0.5, 4, 3, 6)
    results = []
    for name in (engine, "naive"):
        leaves = [t.clone().requires_grad_() for t in given]
        with ops.use(name), autocast():
            y = ops.masked_linear(leaves[0], keep, leaves[1])
        y.float().square().sum().backward()
        results.append({"dx": leaves[0].grad, "dw": leaves[1].grad})
    largest = {n: float(t.abs().max()) for n, t in results[1].items()}
    for name, got in results[0].items():  # rounded once or twice on the way
        assert (got - results[1][name]).abs().max() < 3 * 2**-8 * largest[name], name


@pytest.mark.parametrize("op", ["linear", "step", "nll", "LSTM", "GRU", "attention"])
def test_a_backward_pass_within_autocast(compacting: str, op: str, draw) -> None:
    """Of what ran forward in float32: it is not lowered afterwards, nor does it end in dtypes that
    do not fit."""
    keep, h = draw("structured", 0.5, 4, 3, 6), torch.zeros(3, 5)

    def run(*w: Tensor) -> Tensor:
        x = w[0]
        if op == "linear":
            return ops.masked_linear(x, keep, w[1])
        if op == "step":
            return ops.masked_linear_step(ops.prepare(w[1]), x[0], keep, 1)
        if op == "nll":
            return ops.projected_nll(x, keep, w[1], None, torch.zeros(4, 3, dtype=torch.int64))[0]
        if op == "LSTM":
            return ops.lstm_layer(x, keep, w[2], None, w[3], h, h)[0]
        if op == "GRU":
            return ops.gru_layer(x, keep, w[2][:15], None, w[3][:15], None, h)[0]
        return ops.attend_step(ops.prepare_memory(x), w[1][:4])[0]

    results = []
    for within in (False, True):
        torch.manual_seed(0)
        leaves = [torch.randn(s, requires_grad=True) for s in ((4, 3, 6), (5, 6), (20, 6), (20, 5))]
        with ops.use(compacting):
            y = run(*leaves)
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            y.square().sum().backward()
        results.append([leaf.grad for leaf in leaves])
    for outside, inside in zip(*results):
        assert (outside is None) is (inside is None)
        assert outside is None or torch.equal(outside, inside)
