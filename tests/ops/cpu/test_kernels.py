"""The kernels at awkward sizes, with hostile data, and what they leave behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import kernels, require_native

pytestmark = pytest.mark.usefixtures("native")

# Steps, batch, inputs or hidden units, outputs: below, at and above every block that a kernel has
# (vectors 4 to 16, strips 8 to 32, tiles 6 and 12, segments 48, blocks 256), and 1.
SIZES = [(2, 1, 1, 1), (3, 3, 63, 65), (2, 20, 650, 31), (2, 64, 33, 300), (3, 128, 17, 7),
         (2, 49, 5, 257), (35, 2, 16, 32)]  # fmt: skip
SIZE_IDS = ["x".join(map(str, size)) for size in SIZES]


def gradients(outputs: tuple[Tensor, ...], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a weighted sum of all outputs."""
    generator = torch.Generator().manual_seed(9)
    loss = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))


def linear(engine: str, size, keep: Keep | None, dtype: torch.dtype) -> dict[str, Tensor]:
    T, B, D, N = size
    torch.manual_seed(1)
    made = {"x": torch.randn(T, B, D), "weight": torch.randn(N, D) / D**0.5, "bias": torch.randn(N)}
    leaves = {name: x.to(dtype).requires_grad_() for name, x in made.items()}
    with ops.use(engine):
        y = ops.masked_linear(leaves["x"], keep, leaves["weight"], leaves["bias"])
        return {"y": y.detach(), **gradients((y,), leaves)}


@pytest.mark.parametrize("p", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("time", ["random", "fixed"])
@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
def test_linear(size, time: str, p: float, compare) -> None:
    """float32 against a float64 reference: sums of up to 700 terms of size 1."""
    keep = DropoutPattern(p, time=time).draw(*size[:3])
    want = linear("naive", size, keep, torch.float64)
    compare(linear("cpu", size, keep, torch.float64), want)
    got = {name: x.double() for name, x in linear("cpu", size, keep, torch.float32).items()}
    compare(got, want, rtol=1e-5, atol=5e-4 if p > 0.9 else 5e-5)  # p .95 scales by 20


@pytest.mark.parametrize("p", [None, 0.5, 0.95])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
def test_layer(cell, size, reverse: bool, p: float | None, compare) -> None:
    """float32 against a float64 reference: errors grow along the sequence, with some draws far."""
    T, B, D, H = size
    torch.manual_seed(0)
    keeps = None, None
    if p is not None:
        keeps = DropoutPattern(0.5).draw(T, B, D), DropoutPattern(p).draw(T, B, H)
    given = cell.make(T, B, D, H)
    want = cell.run("naive", keeps, given, reverse=reverse)
    compare(cell.run("cpu", keeps, given, reverse=reverse), want)
    got = cell.run("cpu", keeps, {n: x.float() for n, x in given.items()}, reverse=reverse)
    compare({name: x.double() for name, x in got.items()}, want, rtol=1e-4, atol=1e-3)


# Units below, at and above a vector of any instruction set, and two of them: a GRU's panel.
@pytest.mark.parametrize("H", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33])
def test_panels_that_are_not_full(cell, H: int, compare) -> None:
    before = torch.get_num_threads()
    try:
        for B in (1, 2, 3, 5, 6, 7, 12, 13, 17):
            sizes, reverse = [B, B, (B + 1) // 2, (B + 2) // 3], B % 2 == 0
            given = cell.make(4, B, 3, H, sizes)
            keeps = None, DropoutPattern(0.5).draw(4, B, H)
            want = cell.run("naive", keeps, given, sizes, reverse)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                compare(cell.run("cpu", keeps, given, sizes, reverse), want)
    finally:
        torch.set_num_threads(before)


# Units above and below what a thread takes at once (128 and 384), by batches and thread counts.
@pytest.mark.parametrize("B", [1, 3, 20, 64, 128])
@pytest.mark.parametrize("D", [1, 63, 650, 1200])
def test_the_gradient_for_x_of_any_threads(D: int, B: int, compare) -> None:
    """Each unit is one thread's, whatever the number of them: the same bits."""
    keep = DropoutPattern(0.5).draw(2, B, D)
    sets = kernels.Sets(keep.idx, keep.count, keep.scale)
    dy, weight = torch.randn(2 * B, 40), torch.randn(40, D)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            torch.set_num_threads(n)
            results.append(kernels.linear_bp(dy, weight, sets, [B, B]))
    finally:
        torch.set_num_threads(threads)
    want = (dy.double() @ weight.double()).view(2, B, D)
    want = torch.where(keep.mask(), 2 * want, 0.0).view(2 * B, D)
    compare({"dx": results[0].double()}, {"dx": want}, rtol=1e-5, atol=1e-4)
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("H", [1, 3, 16, 63, 650])
@pytest.mark.parametrize("R", [0, 1, 60])
def test_the_gradient_for_the_bias_alone(R: int, H: int, dtype: torch.dtype) -> None:
    """A column sum of the gates' gradient, in one order for any number of threads."""
    none, nothing = kernels.Sets(), torch.zeros(1, H, dtype=dtype)
    x, rows, gates = (torch.randn(R, n, dtype=dtype) for n in (2, H, 4 * H))
    w, u = (torch.randn(4 * H, n, dtype=dtype) / H**0.5 for n in (2, H))
    layer = kernels.Layer(x, w, None, u, nothing, nothing, none, none, kernels.Rows(R, None), False)
    needs = kernels.Needs(False, False, True, False)
    given = rows, nothing, nothing, layer, rows, gates.sigmoid(), rows, needs
    d_gates, _, _ = kernels.lstm_bp(
        rows, nothing, nothing, u, nothing, gates.sigmoid(), rows, none, [1] * R, False
    )
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            torch.set_num_threads(n)
            grads = kernels.layer_bp(kernels.LayerBP(*given))
            assert [grad.numel() for grad in grads[:4]] == [0, 0, 4 * H, 0]
            results.append(grads[2])
    finally:
        torch.set_num_threads(threads)
    scale = d_gates.abs().sum(0).double() + 1e-30  # of what is added, in 60 roundings
    error = (results[0].double() - d_gates.double().sum(0)).abs() / scale
    assert error.numel() == 0 or error.max() < 60 * torch.finfo(dtype).eps
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("H", [1, 3, 16, 63, 130])
@pytest.mark.parametrize("wanted", [(2,), (4,), (2, 4), (3,), (1, 4)], ids=str)
def test_gradients_of_a_gru_alone(wanted: tuple[int, ...], H: int, dtype: torch.dtype) -> None:
    """Each, and none but what is asked for, with the bits that it has among all."""
    R, none = 20, kernels.Sets()
    x, rows, gates = (torch.randn(R, n, dtype=dtype) for n in (2, H, 4 * H))
    w, u = (torch.randn(3 * H, n, dtype=dtype) / H**0.5 for n in (2, H))
    state = torch.randn(1, H, dtype=dtype)
    layer = kernels.gru.Layer(
        x, w, None, u, None, state, none, none, kernels.Rows(R, None), False
    )  # fmt: skip

    def grads(wanted) -> tuple[Tensor, ...]:
        needs = kernels.gru.Needs(*(k in wanted for k in range(5)))
        given = rows, state, layer, rows, gates.sigmoid(), needs
        return kernels.gru.layer_bp(kernels.gru.LayerBP(*given))

    *want, dh = grads(range(5))
    *got, dh_too = grads(wanted)
    assert torch.equal(dh, dh_too)
    for k in range(5):
        assert torch.equal(got[k], want[k] if k in wanted else want[k].new_empty(0))


@pytest.mark.parametrize("trained", [(), ("weight_ih",), ("weight_hh",), ("x",)])
def test_the_gradient_for_the_bias_without_inputs(trained: tuple[str, ...]) -> None:
    """Layers that take nothing in still have a bias to learn."""
    given = {"x": torch.zeros(3, 2, 0), "weight_ih": torch.zeros(20, 0),
             "bias": torch.zeros(20), "weight_hh": torch.randn(20, 5)}  # fmt: skip
    for name in ("bias", *trained):
        given[name].requires_grad_()
    grads = []
    for engine in ("naive", "cpu"):
        with ops.use(engine):
            y, _, _ = ops.lstm_layer(
                given["x"], None, given["weight_ih"], given["bias"], given["weight_hh"],
                torch.zeros(2, 5), torch.zeros(2, 5),
            )  # fmt: skip
            grads += torch.autograd.grad(y.sum(), given["bias"])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_multiply_adds_are_counted(threads: int) -> None:
    """What the benchmark takes for the machine's limit: all threads', and in proportion."""
    count = require_native().multiply_adds_f32
    one = count(1, 1)
    assert one > 0
    assert count(1000, threads) == 1000 * threads * one
    assert count(0, threads) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_kept_units_pass_on_what_dropped_ones_hide(value: float) -> None:
    keep = DropoutPattern(0.5).draw(2, 3, 40)
    kept, dropped = (int(torch.nonzero(m)[0]) for m in (keep.mask()[0, 0], ~keep.mask()[0, 0]))
    weight = torch.randn(50, 40)
    for unit, spoilt in ((kept, True), (dropped, False)):
        x = torch.randn(2, 3, 40)
        x[0, 1, unit] = value
        with ops.use("cpu"):
            y = ops.masked_linear(x, keep, weight)
        assert (~y.isfinite()).any().item() is spoilt
        assert y[0, [0, 2]].isfinite().all()
        assert y[1].isfinite().all()


SPOILT = {"linear": lambda keep: ops.masked_linear(torch.ones(2, 3, 8), keep, torch.ones(5, 8)),
          "layer": lambda keep: ops.lstm_layer(torch.ones(2, 3, 8), keep, torch.ones(32, 8), None,
                                               torch.ones(32, 8), torch.ones(3, 8),
                                               torch.ones(3, 8)),
          "layer, state": lambda keep: ops.lstm_layer(torch.ones(2, 3, 8), None, torch.ones(32, 8),
                                                      None, torch.ones(32, 8), torch.ones(3, 8),
                                                      torch.ones(3, 8), keep),
          "GRU": lambda keep: ops.gru_layer(torch.ones(2, 3, 8), keep, torch.ones(24, 8), None,
                                            torch.ones(24, 8), None, torch.ones(3, 8)),
          "GRU, state": lambda keep: ops.gru_layer(torch.ones(2, 3, 8), None, torch.ones(24, 8),
                                                   None, torch.ones(24, 8), None,
                                                   torch.ones(3, 8), keep),
          "step": lambda keep: ops.masked_linear_step(ops.prepare(torch.ones(5, 8)),
                                                      torch.ones(3, 8), keep, 0)}  # fmt: skip


@pytest.mark.parametrize("bad", [-1, 9])
@pytest.mark.parametrize("what", ["unit", "count"])
@pytest.mark.parametrize("op", SPOILT)
def test_sets_that_were_spoilt_are_an_error(op: str, what: str, bad: int) -> None:
    """The sets were checked when they were made; a kernel trusts nobody."""
    keep = DropoutPattern(0.5).draw(2, 3, 8)
    keep.count.fill_(4)
    {"unit": keep.idx[0], "count": keep.count}[what][0] = bad
    with ops.use("cpu"), pytest.raises(IndexError) as error:
        SPOILT[op](keep)
    assert (
        str(error.value)
        == {
            "unit": "a kept unit of step 0 is out of range: a width of 8 has units 0 to 7",
            "count": f"keep count {bad} is outside [0, 8], the width",
        }[what]
    )


def test_any_layout_will_do(compare) -> None:
    """Transposed, expanded and sliced tensors are read as they are meant."""
    keep = DropoutPattern(0.5).draw(4, 3, 10)
    x = torch.randn(10, 3, 8).double().permute(2, 1, 0)[::2]  # [4, 3, 10]
    weight, bias = torch.randn(10, 6).double().t(), torch.randn(1).double().expand(6)
    state, u = torch.randn(10).double().expand(3, 10), torch.randn(10, 40).double().t()
    results = []
    for engine in ("cpu", "naive"):
        leaves = {"x": x, "weight": weight, "bias": bias, "h": state, "u": u}
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
        with ops.use(engine):
            y = ops.masked_linear(leaves["x"], keep, leaves["weight"], leaves["bias"])
            w_ih = torch.cat([leaves["weight"]] * 7)[:40]
            h = leaves["h"]
            outputs = ops.lstm_layer(
                leaves["x"], keep, w_ih, None, leaves["u"], h, h.detach(), keep
            )
            results.append(gradients((y, *outputs), leaves) | {"y": y.detach()})
    compare(*results)


@pytest.mark.parametrize("gru", [False, True], ids=["LSTM", "GRU"])
def test_it_keeps_no_more_for_backward_than_it_must(gru: bool) -> None:
    """Activated gates and c, or a GRU's gates and q; h is the output. And no copy of the weight."""
    T, B, H = 5, 4, 64
    x, state = torch.randn(T, B, H, requires_grad=True), torch.zeros(B, H)
    weight = torch.randn((3 if gru else 4) * H, H, requires_grad=True)
    given = {t.data_ptr() for t in (x, weight, state)}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.is_floating_point() and x.data_ptr() not in given:
            kept[x.data_ptr()] = x.numel()
        return x

    with ops.use("cpu"), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        keep = DropoutPattern(0.5).draw(T, B, H)
        if gru:
            ops.gru_layer(x, None, weight, None, weight, None, state, keep)
        else:
            ops.lstm_layer(x, None, weight, None, weight, state, state, keep)
    assert sum(kept.values()) == T * B * (5 if gru else 6) * H
