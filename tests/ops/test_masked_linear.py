"""``masked_linear``: every engine computes what naive computes, and so does a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from opennmt_sd import KeepSets, ops

KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered"]

# name: T, B, D, N
SIZES = {
    "all ones": (1, 1, 1, 1),
    "small": (4, 3, 3, 5),
    "odd": (3, 2, 63, 1),
    "one step": (1, 3, 63, 7),
    "one sample": (5, 1, 63, 7),
}
RATES = {"p=0": 0.0, "p=.5": 0.5, "p=.99": 0.99, "all dropped": "all", "no keep": None}
PACKED = {
    "equal lengths": [2, 2, 2],
    "falling": [4, 2, 2, 1],
    "all of length 1": [3],
    "one of length 1": [2, 1, 1],
    "a single row": [1],
    "in any order": [1, 3, 0, 2],
    "any, as many as if all were equal": [2, 1, 3],
}


def inputs(
    T: int, B: int, D: int, N: int, sizes: list[int] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)

    def make(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).mul(scale).to(dtype)

    rows = (sum(sizes),) if sizes else (T, B)
    return {"x": make(*rows, D), "weight": make(N, D, scale=D**-0.5), "bias": make(N),
            "dy": make(*rows, N)}  # fmt: skip


def run(
    engine: str, keep: Any, given: dict[str, Tensor], sizes: list[int] | None = None,
    bias: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Output and every gradient."""
    x, weight, b = (given[n].clone().requires_grad_() for n in ("x", "weight", "bias"))
    with ops.use(engine):
        y = ops.masked_linear(
            x, keep, weight, b if bias else None,
            batch_sizes=None if sizes is None else torch.tensor(sizes),
        )  # fmt: skip
    y.backward(given["dy"])
    return {"y": y.detach(), "dx": x.grad, "dweight": weight.grad, "dbias": b.grad}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", RATES.values(), ids=RATES.keys())
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_equals_naive(engine: str, kind: str, p: Any, size: tuple, draw, compare) -> None:
    T, B, D, _ = size
    # At .99 a kept unit is 100 times as large, and so is float32's rounding.
    dtype = torch.float64 if p == 0.99 else torch.float32
    given, keep = inputs(*size, dtype=dtype), draw(kind, p, T, B, D)
    compare(run(engine, keep, given), run("naive", keep, given))


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_layer(engine: str, kind: str, draw, compare) -> None:
    given, keep = inputs(3, 2, 650, 130, dtype=torch.float32), draw(kind, 0.5, 3, 2, 650)
    compare(run(engine, keep, given), run("naive", keep, given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.5, "all"], ids=["p=.5", "all dropped"])
@pytest.mark.parametrize("sizes", PACKED.values(), ids=PACKED.keys())
def test_packed_equals_naive(
    engine: str, kind: str, p: Any, sizes: list[int], draw, compare
) -> None:
    T, B = len(sizes), max(sizes)
    given, keep = inputs(T, B, 63, 7, sizes, torch.float32), draw(kind, p, T, B, 63)
    compare(run(engine, keep, given, sizes), run("naive", keep, given, sizes))


@pytest.mark.parametrize("kind", KINDS)
def test_without_bias_equals_naive(engine: str, kind: str, draw, compare) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float32), draw(kind, 0.5, 4, 3, 9)
    compare(run(engine, keep, given, bias=False), run("naive", keep, given, bias=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [None, [3, 2, 2, 1]], ids=["padded", "packed"])
def test_is_dropout_and_then_a_linear_layer(
    any_engine: str, kind: str, sizes, draw, compare
) -> None:
    """A reference of its own, sample by sample, that shares nothing with the naive engine."""
    given, keep = inputs(4, 3, 6, 5, sizes, torch.float64), draw(kind, 0.5, 4, 3, 6)
    mask = keep.mask().expand(4, 3, 6)
    where = [(t, b) for t in range(4) for b in range(sizes[t] if sizes else 3)]
    x, weight, bias = (given[n].clone().requires_grad_() for n in ("x", "weight", "bias"))
    rows = x if sizes else x.flatten(0, 1)
    y = torch.stack([weight @ (row * mask[t, b] * 2.0) + bias for row, (t, b) in zip(rows, where)])
    y = y if sizes else y.unflatten(0, (4, 3))
    y.backward(given["dy"])
    want = {"y": y.detach(), "dx": x.grad, "dweight": weight.grad, "dbias": bias.grad}
    compare(run(any_engine, keep, given, sizes), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [None, [3, 2, 1]], ids=["padded", "packed"])
def test_gradcheck(engine: str, kind: str, sizes, draw) -> None:
    given, keep = inputs(3, 3, 4, 2, sizes, torch.float64), draw(kind, 0.5, 3, 3, 4)
    leaves = [given[n].requires_grad_() for n in ("x", "weight", "bias")]
    packed = None if sizes is None else torch.tensor(sizes)
    with ops.use(engine):
        assert gradcheck(
            lambda x, w, b: ops.masked_linear(x, keep, w, b, batch_sizes=packed),
            leaves,
            fast_mode=True,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(engine: str, kind: str, draw) -> None:
    """Against the exact result of the same bfloat16 inputs."""
    given, keep = inputs(20, 8, 63, 7, dtype=torch.bfloat16), draw(kind, 0.5, 20, 8, 63)
    exact = run("naive", keep, {n: t.double() for n, t in given.items()})
    for name, got in run(engine, keep, given).items():
        assert got.dtype == torch.bfloat16, name
        # Small results are sums of large terms that cancel: the error is that of the largest,
        # rounded twice (the product, and what is added to it).
        error = (got - exact[name]).abs().max() / exact[name].abs().max()
        assert error < 2 * 2**-8, name


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_sums_over_steps_in_float32(engine: str, kind: str, draw) -> None:
    """A bfloat16 sum would stand still at 512: there, adding 2 changes nothing."""
    T = 1000
    keep = draw(kind, 0.5, T, 1, 4)
    shapes = {"x": (T, 1, 4), "weight": (2, 4), "bias": (2,), "dy": (T, 1, 2)}
    ones = {n: torch.ones(shape, dtype=torch.bfloat16) for n, shape in shapes.items()}
    exact = 2.0 * keep.mask().expand(T, 1, 4).sum((0, 1))
    torch.testing.assert_close(
        run(engine, keep, ones)["dweight"][0].float(), exact, rtol=2**-8, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_a_frozen_input_gets_no_gradient(
    any_engine: str, kind: str, frozen: str, draw, compare
) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    leaves = {n: given[n].clone().requires_grad_(n != frozen) for n in ("x", "weight", "bias")}
    ops.masked_linear(leaves["x"], keep, leaves["weight"], leaves["bias"]).backward(given["dy"])
    want = run("naive", keep, given)
    compare(
        {f"d{n}": leaf.grad for n, leaf in leaves.items()},
        {f"d{n}": None if n == frozen else want[f"d{n}"] for n in leaves},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_retained_and_accumulated(any_engine: str, kind: str, draw, compare) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    leaves = {n: given[n].clone().requires_grad_() for n in ("x", "weight", "bias")}
    y = ops.masked_linear(leaves["x"], keep, leaves["weight"], leaves["bias"])
    y.backward(given["dy"], retain_graph=True)
    y.backward(given["dy"])
    want = run("naive", keep, given)
    compare(
        {f"d{n}": leaf.grad for n, leaf in leaves.items()},
        {f"d{n}": 2 * want[f"d{n}"] for n in leaves},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layouts(any_engine: str, kind: str, draw, compare) -> None:
    """Transposed, sliced and expanded tensors mean the same as contiguous ones."""
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    given["x"] = given["x"][:1].expand(4, 3, 9)
    given["dy"] = given["dy"][..., :1].expand(4, 3, 5)
    want = run("naive", keep, {n: t.contiguous() for n, t in given.items()})
    expanded = given["x"]
    batch_first = given["x"].transpose(0, 1).contiguous().transpose(0, 1)
    sliced = torch.cat([given["x"], given["x"]], 2)[..., :9]
    weight = given["weight"].t().contiguous().t()
    assert [t.is_contiguous() for t in (batch_first, sliced, weight)] == [False] * 3
    for name, x in {"expanded": expanded, "batch first": batch_first, "sliced": sliced}.items():
        leaves = {"x": x.detach().requires_grad_(), "weight": weight.detach().requires_grad_(),
                  "bias": given["bias"].clone().requires_grad_()}  # fmt: skip
        y = ops.masked_linear(leaves["x"], keep, leaves["weight"], leaves["bias"])
        grads = torch.autograd.grad(y, list(leaves.values()), given["dy"])
        got = {"y": y.detach(), **{f"d{n}": g for n, g in zip(leaves, grads)}}
        compare({f"{name} {n}": t for n, t in got.items()},
                {f"{name} {n}": t for n, t in want.items()})  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_is_never_read(any_engine: str, kind: str, draw, compare) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    want = run("naive", keep, given)
    mask = keep.mask().expand(4, 3, 9)
    for poison in (torch.nan, torch.inf):
        given["x"] = torch.where(mask, given["x"], poison)
        compare(run(any_engine, keep, given), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=str)
def test_what_is_kept_comes_through(any_engine: str, kind: str, poison: float, draw) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    t, b, unit = keep.mask().expand(4, 3, 9).nonzero()[0].tolist()
    given["x"][t, b, unit] = poison
    got = run(any_engine, keep, given)
    broken = torch.zeros(4, 3, dtype=torch.bool)
    broken[t, b] = True
    assert torch.equal(got["y"].isfinite().logical_not().any(2), broken)
    assert torch.equal(got["dweight"].isfinite().logical_not().any(0), torch.arange(9) == unit), (
        "the poisoned unit's column of dW, and no other"
    )


@pytest.mark.parametrize("kind", ["structured", "fixed"])
def test_padding_of_sets_is_never_read(any_engine: str, kind: str, draw, compare) -> None:
    given, keep = inputs(4, 3, 9, 5, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    padding = torch.arange(9) >= keep.count[:, None]
    idx = torch.where(padding, 10**6, keep.idx).to(torch.int32)
    garbage = KeepSets(idx, keep.count, keep.scale)
    compare(run(any_engine, garbage, given), run("naive", keep, given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0)], ids=["T=0", "B=0"])
def test_nothing_to_multiply(any_engine: str, kind: str, T: int, B: int, draw) -> None:
    given, keep = inputs(T, B, 9, 5, dtype=torch.float64), draw(kind, 0.5, T, B, 9)
    got = run(any_engine, keep, given)
    assert got["y"].shape == (T, B, 5)
    assert got["dx"].shape == (T, B, 9)
    assert torch.equal(got["dweight"], torch.zeros(5, 9, dtype=torch.float64))
    assert torch.equal(got["dbias"], torch.zeros(5, dtype=torch.float64))


def test_one_set_of_hand(any_engine: str) -> None:
    """Small enough to check in the head: units 0 and 2 of 3 are kept, and doubled."""
    idx, count = torch.tensor([[0, 2, 7]]), torch.tensor([2])
    keep = KeepSets(idx.int(), count.int(), 2.0)
    x = torch.tensor([[[1.0, 10.0, 100.0]]], requires_grad=True)
    weight = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]], requires_grad=True)
    y = ops.masked_linear(x, keep, weight, torch.tensor([0.5, 0.0]))
    assert y.tolist() == [[[202.5, 602.0]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[4.0, 0.0, 8.0]]]
    assert weight.grad.tolist() == [[2.0, 0.0, 200.0]] * 2
