"""What is small is dropped from by one product, on the CPU: as by the mask that was drawn first."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from opennmt_sd import DropoutPattern, KeepMask, StructuredDropout
from opennmt_sd.compat import KNOWS_OPS
from opennmt_sd.dropout import philox
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.cpu import philox as native_draws

T, B, D = 4, 3, 5
SIZES = torch.tensor([3, 3, 2, 1])
PATTERNS = [
    DropoutPattern(0.3), DropoutPattern(0.3, time="fixed"), DropoutPattern(0.3, space="random"),
    DropoutPattern(0.3, "random", "fixed"), DropoutPattern(0.3, count="exact"),
]  # fmt: skip
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each draw for a product gave one."""
    if native() is None:
        pytest.skip("the native module was not built")
    made: list[bool] = []

    def counted(*given: Any) -> Tensor | None:
        factors = native_draws.factors_for(*given)
        made.append(factors is not None)
        return factors

    monkeypatch.setitem(philox._implemented, "factors_for", counted)
    return made


def drawn(pattern: DropoutPattern, T: int = T) -> KeepMask:
    return pattern.draw_mask(T, B, D, torch.Generator().manual_seed(2))


def by_hand(keep: KeepMask, x: Tensor) -> Tensor:
    """Drop as written, with the mask made first; of packed rows by their step and sample."""
    mask = keep.dense.expand(T if x.dim() == 2 else -1, -1, -1)
    if x.dim() == 2:
        mask = torch.cat([step[:n] for step, n in zip(mask, SIZES.tolist())])
    return torch.where(mask, x * keep.scale, 0.0)


@every_pattern
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["time first", "batch first", "other strides", "packed"])
def test_values_and_gradients(pattern, dtype, layout: str, products: list[bool]) -> None:
    shape = {"batch first": (B, T, D), "other strides": (D, T, B), "packed": (9, D)}
    x = torch.randn(shape.get(layout, (T, B, D)), dtype=dtype)
    if layout == "batch first":
        x = x.transpose(0, 1)
    elif layout == "other strides":
        x = x.movedim(0, 2)
    sizes = SIZES if layout == "packed" else None
    results = []
    for drop in (lambda x: drawn(pattern).apply(x, sizes), lambda x: by_hand(drawn(pattern), x)):
        given = x.detach().requires_grad_()
        y = drop(given)
        (y * y.detach().cos()).sum().backward()
        results += [y, given.grad]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    if pattern.exact or (layout == "packed" and not pattern.structured):
        assert not products  # a mask of its own
    else:
        assert products == [layout != "other strides"]


@pytest.mark.parametrize("pattern", PATTERNS[:3], ids=str)
def test_a_single_step(pattern: DropoutPattern, products: list[bool]) -> None:
    x = torch.randn(B, D)
    y = drawn(pattern, 1).apply_alone(x)
    assert torch.equal(y, torch.where(drawn(pattern, 1).dense[0], x * (1 / 0.7), 0.0))
    assert products == [True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 7, T * B * D - 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_dropped_is_zero_whatever_it_was(value, at, dtype, products: list[bool]) -> None:
    x = torch.ones(T, B, D, dtype=dtype)
    x.view(-1)[at] = value
    for seed in range(6):
        keep = DropoutPattern(0.5).draw_mask(T, B, D, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(keep.apply(x), by_hand(keep, x), rtol=0, atol=0, equal_nan=True)
    assert products == [False] * 6


def test_others_go_by_the_mask(products: list[bool]) -> None:
    """Half precision, in which a scale is rounded, whole numbers, what is large, what is on no
    memory, and what is drawn already."""
    half, whole = torch.ones(T, B, D, dtype=torch.bfloat16), torch.ones(T, B, D, dtype=torch.int64)
    for x in (half, whole):
        assert torch.equal(drawn(PATTERNS[0]).apply(x), by_hand(drawn(PATTERNS[0]), x))
    assert products == [False, False]
    products.clear()
    large = torch.ones(T, 2000, D)
    keep = DropoutPattern(0.3).draw_mask(*large.shape)
    assert set(keep.apply(large).unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert drawn(PATTERNS[0]).apply(torch.ones(T, B, D, device="meta")).is_meta
    keep = drawn(PATTERNS[0])
    keep.mask()
    keep.apply(torch.ones(T, B, D))
    assert not products


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("watching", [Seen, profile], ids=["a dispatch mode", "a profiler"])
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_who_watches_changes_nothing(watching: Any, when: str, products: list[bool]) -> None:
    """Activation checkpointing refuses what saves other tensors the second time."""
    x, drop = torch.randn(T, B, D, requires_grad=True), StructuredDropout(0.5)
    with watching() if when == "forward" else nullcontext():
        y = checkpoint(drop, x, use_reentrant=False)
    with watching() if when == "backward" else nullcontext():
        y.backward(torch.ones_like(y))
    assert products == [True, True]
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))


NO_FAKES = pytest.mark.skipif(not KNOWS_OPS, reason="an older torch makes no fakes of our ops")


@pytest.mark.parametrize("mode", ["real", pytest.param("fake", marks=NO_FAKES)])
def test_a_graph_holds_the_draw(mode: str, products: list[bool]) -> None:
    drop, x = StructuredDropout(0.5), torch.randn(T, B, D)
    graph = make_fx(drop, tracing_mode=mode)(x)
    results = []
    for run in (graph, drop):
        torch.manual_seed(3)
        results.append(run(x))
    assert torch.equal(*results)
    assert products == [True]


@pytest.mark.parametrize("transform", [
    lambda f, x: torch.func.vmap(f, randomness="same")(torch.stack([x, x]))[1],
    lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[0],
    lambda f, x: torch.func.vjp(f, x)[0],
], ids=["vmap", "jvp", "vjp"])  # fmt: skip
def test_transforms(transform: Callable[..., Tensor], products: list[bool]) -> None:
    x = torch.randn(T, B, D)
    torch.manual_seed(1)
    y = transform(StructuredDropout(0.5), x)
    assert not products
    torch.manual_seed(1)
    assert torch.equal(y, StructuredDropout(0.5)(x))


def test_what_is_no_plain_tensor(products: list[bool]) -> None:
    """A parameter is one; of zeros that torch never made, nothing may be read."""
    x = torch.nn.Parameter(torch.randn(T, B, D))
    y = drawn(PATTERNS[0]).apply(x)
    assert products == [True]
    assert type(y) is Tensor
    assert torch.equal(y, by_hand(drawn(PATTERNS[0]), x))
    y = drawn(PATTERNS[0]).apply(torch._efficientzerotensor((T, B, D)))
    assert products == [True]
    assert torch.equal(y, torch.zeros(T, B, D))


def test_derivatives_of_derivatives(products: list[bool]) -> None:
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: drawn(PATTERNS[0]).apply(x), x)
    d = torch.randn(3, T, B, D, dtype=torch.float64)
    y = drawn(PATTERNS[0]).apply(x)
    assert all(products)
    found = torch.autograd.grad(y, x, d, is_grads_batched=True)[0]
    assert torch.equal(found, torch.stack([by_hand(drawn(PATTERNS[0]), each) for each in d]))


def test_memory_is_only_read(products: list[bool]) -> None:
    """Of an x that lies within something larger, its own values alone; none of one without any."""
    x = torch.full((T + 2, B, D), math.nan)
    x[1:-1] = 1.0
    drawn(PATTERNS[0]).apply(x[1:-1])
    DropoutPattern(0.5).draw_mask(T, 0, D).apply(x[:T, :0])
    assert products == [True, True]


def test_the_first_values_of_a_wider_tensor(products: list[bool]) -> None:
    wide = torch.randn(T, B, D + 1)
    y = drawn(PATTERNS[0]).apply(wide[..., :D])
    assert torch.equal(y, by_hand(drawn(PATTERNS[0]), wide[..., :D]))
    assert products == [False]


def test_with_another_default_device(products: list[bool]) -> None:
    with torch.device("meta"):
        y = drawn(PATTERNS[0]).apply(torch.ones(T, B, D, device="cpu"))
    assert y.device.type == "cpu"
