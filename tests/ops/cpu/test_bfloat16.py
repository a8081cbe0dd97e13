"""Products in bfloat16, by the kernels that any processor can run: asked for by torch's switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, MaskedLinear, ops
from opennmt_sd.dropout import KeepSets
from opennmt_sd.ops.cpu import bfloat16, kernels

pytestmark = pytest.mark.usefixtures("native")

Results = dict[str, Tensor]

# Steps, batch, inputs, outputs or hidden units: below, at and above every block of a kernel, odd
# numbers of rows and of columns, one of each.
SIZES = [(2, 1, 1, 1), (3, 3, 63, 65), (2, 20, 650, 31), (1, 49, 33, 600), (3, 128, 17, 7)]
SIZE_IDS = ["x".join(map(str, size)) for size in SIZES]


@pytest.fixture
def medium(matmul_precision) -> Iterator[None]:
    """Every product of float32 is made in bfloat16, on any processor."""
    matmul_precision("medium")
    with bfloat16.emulated():
        yield


def leaves(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: x.to(dtype).requires_grad_() for name, x in given.items()}


def gradients(outputs: tuple[Tensor, ...], of: dict[str, Tensor]) -> Results:
    """Of a weighted sum of all outputs."""
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(y.shape, generator=generator) for y in outputs]
    loss = sum((y.double() * w).sum() for y, w in zip(outputs, weights))
    return dict(zip(of, torch.autograd.grad(loss, list(of.values()))))


def projection(size: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """An input, a weight and a bias, from a seed that what is drawn later follows."""
    T, B, D, N = size
    torch.manual_seed(1)
    given = {
        "x": torch.randn(T, B, D),
        "weight": torch.randn(N, D) / D**0.5,
        "bias": torch.randn(N),
    }
    return leaves(given, dtype)


def linear(engine: str, size, keep, dtype: torch.dtype) -> Results:
    of = projection(size, dtype)
    with ops.use(engine):
        y = ops.masked_linear(of["x"], keep, of["weight"], of["bias"])
    return {"y": y.detach(), **gradients((y,), of)}


def nll(engine: str, size, keep, dtype: torch.dtype) -> Results:
    T, B, _, V = size
    of, targets = projection(size, dtype), torch.randint(V, (T, B))
    with ops.use(engine):
        loss, _ = ops.projected_nll(of["x"], keep, of["weight"], of["bias"], targets)
    return {"loss": loss.detach(), **gradients((loss,), of)}


def steps(engine: str, size, keep, dtype: torch.dtype) -> Results:
    of = projection(size, dtype)
    with ops.use(engine):
        handle = ops.prepare(of["weight"], of["bias"])
        y = [ops.masked_linear_step(handle, x, keep, t) for t, x in enumerate(of["x"])]
    return {"y": torch.stack(y).detach(), **gradients(tuple(y), of)}


def distance(got: Results, want: Results) -> dict[str, float]:
    """Of each result from what it should be, as a share of that."""
    return {n: float((got[n].double() - want[n]).norm() / (want[n].norm() + 1e-300)) for n in want}


def check(run: Callable[..., Results], size, keep) -> None:
    """No further from float64 than what torch's own products of bfloat16 give, and not float32."""
    want = run("naive", size, keep, torch.float64)
    stock = distance(run("naive", size, keep, torch.bfloat16), want)
    ours = distance(run("cpu", size, keep, torch.float32), want)
    for name, error in ours.items():
        if want[name].numel() < 100:  # by chance, one of a few is nearer
            assert error < 2**-6, name
        elif name != "bias":  # whose gradient is a sum, and no product
            assert 1e-4 < error <= stock[name], name
    if run is not nll:
        assert ours["bias"] < 1e-5


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("p", [None, 0.0, 0.5, 0.8])
@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
@pytest.mark.parametrize("run", [linear, nll, steps])
def test_a_projection(run: Callable[..., Results], size, p: float | None, draw) -> None:
    check(run, size, draw("structured", p, *size[:3]))


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("time", ["random", "fixed"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 16, 17, 33])
def test_odd_numbers_of_kept_units(count: int, time: str) -> None:
    """The last unit of an odd number makes a pair with nothing."""
    T, _, D, _ = size = (3, 5, 33, 40)
    S = T if time == "random" else 1
    idx = torch.zeros(S, D, dtype=torch.int32)
    chosen = [torch.randperm(D)[:count].sort().values.int() for _ in range(S)]
    for row, units in zip(idx, chosen):
        row[:count] = units
    keep = KeepSets(idx, torch.full((S,), count, dtype=torch.int32), 1.5)
    want = linear("naive", size, keep, torch.float64)
    got = linear("cpu", size, keep, torch.float32)
    for name, value in want.items():
        torch.testing.assert_close(got[name].double(), value, rtol=2**-6, atol=0.1)
    if not count:
        assert torch.equal(got["y"], linear("naive", size, keep, torch.float32)["y"])
        assert not got["x"].any()
        assert not got["weight"].any()


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("kinds", [(None, None), ("structured", "fixed"), (None, "mask")], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("size", [(7, 20, 65, 100), (4, 3, 33, 17), (3, 49, 5, 270)], ids=str)
def test_a_layer(cell, size, reverse: bool, kinds, draw_both) -> None:
    T, B, D, H = size
    keeps = draw_both(kinds, 0.5, T, B, D, H)
    packed = None if reverse else [B, *sorted(torch.randint(1, B, (T - 1,)).tolist())[::-1]]

    def run(engine: str, dtype: torch.dtype) -> dict[str, Any]:
        given = cell.make(T, B, D, H, packed)
        return cell.run(engine, keeps, {n: x.to(dtype) for n, x in given.items()}, packed, reverse)

    want = run("naive", torch.float64)
    stock = distance(run("naive", torch.bfloat16), want)
    ours = distance(run("cpu", torch.float32), want)
    for name, error in ours.items():
        assert 1e-5 < error < stock[name], name


ONE = {  # the one product of each phase, of x and one: the other factor of a sum is zero
    "FP": lambda x: ops.masked_linear(x[:, None, None], None, torch.ones(1, 1))[:, 0, 0],
    "FP, one step": lambda x: ops.masked_linear_step(ops.prepare(x[:, None]), torch.ones(1, 1))[0],
    "BP": lambda x: kernels.linear_bp(x[:, None], torch.ones(1, 1), kernels.Sets(), [len(x)])[:, 0],
    "WG": lambda x: kernels.linear_wg(x[None], torch.ones(1, 1), kernels.Sets(), [1])[0],
}


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("product", ONE.values(), ids=ONE.keys())
def test_rounding(product: Callable[[Tensor], Tensor]) -> None:
    """To nearest even, as torch does it, of any number: infinities, and NaN of any kind, stay."""
    any_bits = torch.randint(-(2**31), 2**31, (5000,), dtype=torch.int64)
    halfway = (torch.arange(0x3F80, 0x4080) << 16) + 0x8000
    largest = [0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF, 0]
    bits = torch.cat([any_bits, halfway, halfway - 1, halfway + 1, torch.tensor(largest)])
    x = bits.to(torch.int32).view(torch.float32)
    x = torch.cat([x, -x])
    x = x[~(x.abs() < 2.0**-126) | (x == 0)]  # what is less, the processor takes for zero
    with torch.no_grad(), ops.use("cpu"):
        got = product(x)
    want = x.bfloat16().float()
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert want.isnan().any()
    assert want.isinf().any()


@pytest.mark.usefixtures("medium")
def test_dropped_units_are_not_read() -> None:
    """NaN in kept units go on, those in dropped ones do nothing; a pair may have one of each."""
    T, B, D, N = 3, 4, 37, 40
    keep = DropoutPattern(0.5).draw(T, B, D)
    x, weight = torch.randn(T, B, D), torch.randn(N, D)
    for t in range(T):
        kept = keep.idx[t, : keep.count[t]].tolist()
        x[t, :, [d for d in range(D) if d not in kept]] = float("nan")
    with ops.use("cpu"):
        assert ops.masked_linear(x, keep, weight).isfinite().all()
        x[1, 2, int(keep.idx[1, 0])] = float("nan")
        y = ops.masked_linear(x, keep, weight)
    assert y[1, 2].isnan().all()
    assert y.isnan().sum() == N


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("size", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)], ids=str)
def test_nothing_to_multiply(size, compare) -> None:
    compare(linear("cpu", size, None, torch.float32), linear("naive", size, None, torch.float32))


def test_the_switch_is_obeyed_at_each_call(matmul_precision) -> None:
    """Forward and backward, each as the switch stands then; float64 whatever it says."""
    size, keep = (2, 20, 130, 40), DropoutPattern(0.5).draw(2, 20, 130)
    of = ("y", "x", "weight", "bias")
    with bfloat16.emulated():
        high = linear("cpu", size, keep, torch.float32)
        double = linear("cpu", size, keep, torch.float64)
        matmul_precision("high")
        same = linear("cpu", size, keep, torch.float32)
        matmul_precision("medium")
        low = linear("cpu", size, keep, torch.float32)
        double_again = linear("cpu", size, keep, torch.float64)
        matmul_precision("highest")
        again = linear("cpu", size, keep, torch.float32)
    assert all(torch.equal(high[n], same[n]) and torch.equal(high[n], again[n]) for n in of)
    assert all(torch.equal(double[n], double_again[n]) for n in of)
    assert not any(torch.equal(high[n], low[n]) for n in of[:3])


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("T", [1, 5])
def test_bits_do_not_depend_on_threads(cell, T: int, draw_both) -> None:
    """As in float32."""
    B, D, H = 21, 130, 150
    keeps = draw_both(("structured", "structured"), 0.5, T, B, D, H)
    given = cell.make(T, B, D, H, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 2, 3):
            torch.set_num_threads(n)
            results.append(cell.run("cpu", keeps, given))
    finally:
        torch.set_num_threads(threads)
    for got in results[1:]:
        assert all(torch.equal(got[name], x) for name, x in results[0].items())


def test_a_processor_without_it_tells_once(matmul_precision) -> None:
    if bfloat16.known():
        pytest.skip("this processor multiplies in bfloat16")
    size = (2, 3, 33, 20)
    want = linear("cpu", size, None, torch.float32)
    matmul_precision("medium")
    bfloat16._tell.cache_clear()
    with pytest.warns(RuntimeWarning) as told:
        got = [linear("cpu", size, None, torch.float32) for _ in "12"]
    assert [str(warning.message) for warning in told] == [
        'torch.set_float32_matmul_precision("medium") asks for products in bfloat16, and '
        "bfloat16 is no faster on this processor: opennmt_sd multiplies float32 in float32"
    ]
    assert all(torch.equal(g[name], x) for g in got for name, x in want.items())


@pytest.mark.usefixtures("matmul_precision")
@pytest.mark.parametrize("run", [linear, nll])
def test_autocast_multiplies_as_the_switch_does(run: Callable[..., Results], draw) -> None:
    """And rounds what it gives, where torch does."""
    size = (2, 20, 130, 40)
    keep = draw("structured", 0.5, *size[:3])
    with bfloat16.emulated():
        with torch.autocast("cpu", torch.bfloat16):
            got = run("cpu", size, keep, torch.float32)
        torch.set_float32_matmul_precision("medium")
        want = run("cpu", size, keep, torch.float32)
    first = next(iter(want))
    assert got[first].dtype == (torch.bfloat16 if run is linear else torch.float32)
    assert torch.equal(got[first], want[first].to(got[first].dtype))
    for name in ("x", "weight", "bias"):  # y's gradient came rounded
        torch.testing.assert_close(got[name], want[name], rtol=2**-7, atol=0.02)
        assert got[name].dtype == torch.float32


def each_op(cell, draw, dtype: torch.dtype) -> dict[str, Callable[[], list[Tensor]]]:
    """Each op on tensors that bfloat16 can hold, of a dtype: results and gradients."""
    T, B, D, H = 4, 5, 33, 24
    keep = draw("structured", 0.5, T, B, D)

    def of(*shapes: tuple[int, ...]) -> list[Tensor]:
        torch.manual_seed(2)
        return [torch.randn(s).bfloat16().to(dtype).requires_grad_() for s in shapes]

    def result(outputs: Any, given: list[Tensor]) -> list[Tensor]:
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum(y.float().square().sum() for y in outputs)
        return [
            *(y.detach() for y in outputs),
            *torch.autograd.grad(loss, given, allow_unused=True),
        ]

    def projection() -> list[Tensor]:
        given = of((T, B, D), (H, D), (H,))
        return result(ops.masked_linear(given[0], keep, *given[1:]), given)

    def loss() -> list[Tensor]:
        given = of((T, B, D), (H, D), (H,))
        targets = torch.arange(T * B).view(T, B) % H
        return result(ops.projected_nll(given[0], keep, *given[1:], targets)[0], given)

    def step() -> list[Tensor]:
        given = of((B, D), (H, D), (H,))
        return result(ops.masked_linear_step(ops.prepare(*given[1:]), given[0], keep, 2), given)

    def attention() -> list[Tensor]:
        given = of((B, 7, D), (B, D))
        return result(ops.attend_step(ops.prepare_memory(given[0]), given[1]), given)

    def lstm_gates() -> list[Tensor]:
        given = of((B, 4 * H), (B, H))
        return result(ops.lstm_gates(*given), given)

    def gru_gates() -> list[Tensor]:
        given = of((B, 3 * H), (B, 3 * H), (B, H))
        return result(ops.gru_gates(*given), given)

    def layer() -> list[Tensor]:
        given = cell.make(T, B, D, H, dtype=torch.bfloat16)
        leaves = cell.leaves({name: x.to(dtype) for name, x in given.items()})
        return result(cell(leaves, (keep, None)), list(leaves.values()))

    made = projection, loss, step, attention, lstm_gates, gru_gates, layer
    return {one.__name__: one for one in made}


@pytest.mark.parametrize("multiplied", ["bfloat16", "float32"])
def test_tensors_of_bfloat16(multiplied: str, cell, draw) -> None:
    """Go in and come out, of kernels that multiply in it, or of those of float32."""
    assert ops.engine_for("cpu", torch.bfloat16) == "cpu"
    exact = each_op(cell, draw, torch.float64)
    for name, run in each_op(cell, draw, torch.bfloat16).items():
        with ops.use("naive"):
            want, stock = exact[name](), run()
        with bfloat16.emulated() if multiplied == "bfloat16" else nullcontext():
            got = run()
        for ours, naive, right in zip(got, stock, want):
            assert ours.dtype == naive.dtype, name
            error, allowed = ((x.double() - right).norm() for x in (ours, naive))
            assert error <= allowed + 2**-8 * right.norm(), name


@pytest.mark.usefixtures("medium")
def test_float16_stays_where_it_is() -> None:
    assert ops.engine_for("cpu", torch.float16) == "portable"
    module = MaskedLinear(6, 5, dropout=0.0).to(torch.float16)
    assert not ops.has_kernels(module.weight)
