"""``prepare`` and ``masked_linear_step``: one step at a time, one weight gradient at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from opennmt_sd import ops

T, B, D = 5, 3, 6
KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered"]


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.5, 0.99, "all"], ids=["p=0", "p=.5", "p=.99", "all dropped"])
def test_equals_plain_autograd(any_engine: str, kind, p: Any, steps, draw, compare) -> None:
    keep = None if kind is None else draw(kind, p, T, B, D)
    leaves = steps.leaves()
    y = steps.run(leaves, keep)
    y.backward(steps.given["dy"])
    compare({"y": y.detach(), **steps.grads(leaves)}, steps.wanted(keep))


def test_float32(engine: str, keep, steps, compare) -> None:
    steps.given = {n: t.float() for n, t in steps.given.items()}
    leaves = steps.leaves()
    with ops.use(engine):
        y = steps.run(leaves, keep)
    y.backward(steps.given["dy"])
    compare({"y": y.detach(), **steps.grads(leaves)}, steps.wanted(keep))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_sums_over_steps_in_float32(engine: str, kind, draw) -> None:
    """A bfloat16 sum would stand still at 512: there, adding 2 changes nothing."""
    steps = 1000
    keep = draw(kind, 0.5, steps, 1, 4)
    x, weight = torch.ones(1, 4).bfloat16(), torch.ones(2, 4).bfloat16().requires_grad_()
    bias = torch.zeros(2).bfloat16().requires_grad_()
    with ops.use(engine):
        handle = ops.prepare(weight, bias)
        outputs = [ops.masked_linear_step(handle, x, keep, t) for t in range(steps)]
    torch.stack(outputs).sum().backward()
    exact = 2.0 * keep.mask().expand(steps, 1, 4).sum((0, 1))
    torch.testing.assert_close(weight.grad[0].float(), exact, rtol=2**-8, atol=0)
    torch.testing.assert_close(bias.grad.float(), torch.full((2,), 1000.0), rtol=2**-8, atol=0)


def test_gradcheck(engine: str, keep, steps) -> None:
    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return steps.run({"x": x, "weight": weight, "bias": bias}, keep)

    with ops.use(engine):
        assert gradcheck(run, tuple(steps.leaves().values()), fast_mode=True)


def test_without_bias(any_engine: str, keep, steps, compare) -> None:
    steps.given["bias"] = torch.zeros(D, dtype=torch.float64)
    leaves = steps.leaves()
    handle = ops.prepare(leaves["weight"])
    y = torch.stack(
        steps.loop(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])
    )
    y.backward(steps.given["dy"])
    want = steps.wanted(keep)
    want["dbias"] = None
    compare({"y": y.detach(), **steps.grads(leaves)}, want)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_a_frozen_input_gets_no_gradient(
    any_engine: str, keep, frozen: str, steps, compare
) -> None:
    leaves = steps.leaves(frozen)
    y = steps.run(leaves, keep)
    y.backward(steps.given["dy"])
    compare({"y": y.detach(), **steps.grads(leaves)}, steps.wanted(keep, frozen=frozen))


def test_sequences_that_end(any_engine: str, keep, steps, compare) -> None:
    """Each step has fewer samples than the one before."""
    sizes = [3, 3, 2, 1, 1]

    def run(leaves: dict[str, Tensor], step: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
        x, outputs = leaves["x"], []
        for t, n in enumerate(sizes):
            x = torch.tanh(step(x[:n], t))
            outputs.append(x)
        y = torch.cat(outputs)
        y.backward(torch.cat([dy[:n] for dy, n in zip(steps.given["dy"], sizes)]))
        return {"y": y.detach(), **steps.grads(leaves)}

    leaves, plain = steps.leaves(), steps.leaves()
    handle = ops.prepare(leaves["weight"], leaves["bias"])
    mask = None if keep is None else keep.mask().expand(T, B, D) * keep.scale

    def reference_step(x: Tensor, t: int) -> Tensor:
        x = x if mask is None else x * mask[t, : len(x)]
        return torch.nn.functional.linear(x, plain["weight"], plain["bias"])

    got = run(leaves, lambda x, t: ops.masked_linear_step(handle, x, keep, t))
    compare(got, run(plain, reference_step))


def test_without_gradients(any_engine: str, keep, steps, compare) -> None:
    with torch.no_grad():
        y = steps.run(steps.leaves(), keep)
    assert not y.requires_grad
    compare({"y": y}, {"y": steps.wanted(keep)["y"]})


def test_the_steps_in_any_order(any_engine: str, steps, draw, compare) -> None:
    keep = draw("structured", 0.5, T, B, D)
    x = torch.randn(T, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for order in (range(T), [3, 0, 4, 2, 1]):
        leaves = steps.leaves()
        handle = ops.prepare(leaves["weight"], leaves["bias"])
        y = {t: ops.masked_linear_step(handle, x[t], keep, t) for t in order}
        y = torch.stack([y[t] for t in range(T)])
        y.backward(steps.given["dy"])
        results.append({"y": y.detach(), "dw": leaves["weight"].grad, "db": leaves["bias"].grad})
    compare(results[1], results[0])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_is_never_read(any_engine: str, kind, steps, draw, compare) -> None:
    keep = draw(kind, 0.5, T, B, D)
    want = steps.wanted(keep)
    steps.given["x"] = torch.where(keep.mask()[0], steps.given["x"], torch.nan)
    leaves = steps.leaves()
    y = steps.run(leaves, keep)
    y.backward(steps.given["dy"])
    compare({"y": y.detach(), **steps.grads(leaves)}, want)


def test_no_batch(any_engine: str, draw) -> None:
    weight = torch.randn(4, D, requires_grad=True)
    handle = ops.prepare(weight)
    y = ops.masked_linear_step(handle, torch.empty(0, D), draw("structured", 0.5, T, 1, D), 0)
    assert y.shape == (0, 4)
    y.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(4, D))


def test_a_handle_stays_with_its_engine() -> None:
    with ops.use("naive"):
        handle = ops.prepare(torch.randn(4, D))
    with ops.use("portable"):
        ops.masked_linear_step(handle, torch.randn(B, D))
    assert type(handle.handle).__module__ == "opennmt_sd.ops.naive.stepwise"
