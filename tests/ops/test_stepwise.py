"""``prepare`` and ``masked_linear_step``: one step at a time, one weight gradient at the end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from opennmt_sd import ops

KINDS = ["structured", "fixed", "mask", "fixed mask", None]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)

T, B, D = 5, 3, 6


@pytest.fixture
def given() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)

    def make(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return {"x": make(B, D), "weight": make(D, D) * D**-0.5, "bias": make(D), "dy": make(T, B, D)}


def each(step: Callable[[Tensor, int], Tensor], x: Tensor, steps: int = T) -> list[Tensor]:
    """What stepwise use is for: the next input needs this step's output. ``[B, D]`` a step."""
    outputs = []
    for t in range(steps):
        x = torch.tanh(step(x, t))
        outputs.append(x)
    return outputs


def loop(step: Callable[[Tensor, int], Tensor], x: Tensor, steps: int = T) -> Tensor:
    """All outputs, ``[steps, B, D]``."""
    return torch.stack(each(step, x, steps))


def leaves_of(given: dict[str, Tensor], frozen: str = "") -> dict[str, Tensor]:
    return {n: given[n].clone().requires_grad_(n != frozen) for n in ("x", "weight", "bias")}


def stepwise_each(leaves: dict[str, Tensor], keep: Any) -> list[Tensor]:
    handle = ops.prepare(leaves["weight"], leaves["bias"])
    return each(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])


def stepwise(leaves: dict[str, Tensor], keep: Any) -> Tensor:
    return torch.stack(stepwise_each(leaves, keep))


def reference(leaves: dict[str, Tensor], keep: Any, steps: int = T) -> Tensor:
    """Plain autograd: a dropped input and torch's linear layer."""

    def step(x: Tensor, t: int) -> Tensor:
        if keep is not None:
            x = x * keep.mask().expand(T, B, D)[t] * keep.scale
        return torch.nn.functional.linear(x, leaves["weight"], leaves["bias"])

    return loop(step, leaves["x"], steps)


def grads(leaves: dict[str, Tensor]) -> dict[str, Any]:
    return {f"d{n}": leaf.grad for n, leaf in leaves.items()}


def wanted(given: dict[str, Tensor], keep: Any, steps: int = T, frozen: str = "") -> dict[str, Any]:
    leaves = leaves_of(given, frozen)
    y = reference(leaves, keep, steps)
    y.backward(given["dy"][:steps])
    return {"y": y.detach(), **grads(leaves)}


@every_kind
@pytest.mark.parametrize("p", [0.0, 0.5, 0.99, "all"], ids=["p=0", "p=.5", "p=.99", "all dropped"])
def test_equals_plain_autograd(any_engine: str, kind, p: Any, given, draw, compare) -> None:
    keep = None if kind is None else draw(kind, p, T, B, D)
    leaves = leaves_of(given)
    y = stepwise(leaves, keep)
    y.backward(given["dy"])
    compare({"y": y.detach(), **grads(leaves)}, wanted(given, keep))


@every_kind
def test_float32(engine: str, kind, given, draw, compare) -> None:
    given = {n: t.float() for n, t in given.items()}
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    with ops.use(engine):
        y = stepwise(leaves, keep)
    y.backward(given["dy"])
    compare({"y": y.detach(), **grads(leaves)}, wanted(given, keep))


@pytest.mark.parametrize("kind", KINDS[:-1])
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


@every_kind
def test_gradcheck(engine: str, kind, given, draw) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return stepwise({"x": x, "weight": weight, "bias": bias}, keep)

    with ops.use(engine):
        assert gradcheck(run, tuple(leaves_of(given).values()))


@every_kind
def test_without_bias(any_engine: str, kind, given, draw, compare) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    given["bias"] = torch.zeros(D, dtype=torch.float64)
    leaves = leaves_of(given)
    handle = ops.prepare(leaves["weight"])
    y = loop(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])
    y.backward(given["dy"])
    want = wanted(given, keep)
    want["dbias"] = None
    compare({"y": y.detach(), **grads(leaves)}, want)


@every_kind
@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_a_frozen_input_gets_no_gradient(
    any_engine: str, kind, frozen: str, given, draw, compare
) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given, frozen)
    y = stepwise(leaves, keep)
    y.backward(given["dy"])
    compare({"y": y.detach(), **grads(leaves)}, wanted(given, keep, frozen=frozen))


@every_kind
def test_retained_and_accumulated(any_engine: str, kind, given, draw, compare) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    y = stepwise(leaves, keep)
    y.backward(given["dy"], retain_graph=True)
    y.backward(given["dy"])
    want = wanted(given, keep)
    compare(grads(leaves), {n: 2 * want[n] for n in grads(leaves)})


@every_kind
def test_a_pass_for_x_alone_leaves_nothing_behind(
    any_engine: str, kind, given, draw, compare
) -> None:
    """A pass that does not ask for the weight must not count in the next one that does."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    y = stepwise(leaves, keep)
    want = wanted(given, keep)
    (dx,) = torch.autograd.grad(y, leaves["x"], 3 * given["dy"], retain_graph=True)
    compare({"dx": dx}, {"dx": 3 * want["dx"]})
    torch.autograd.grad(y[:, 0], leaves["x"], given["dy"][:, 0], retain_graph=True)
    y.backward(given["dy"])
    compare(grads(leaves), {n: want[n] for n in grads(leaves)})


@every_kind
@pytest.mark.parametrize("before", ["x alone", "everything", "interrupted"])
def test_a_pass_over_all_steps_and_then_over_a_few(
    any_engine: str, kind, before: str, given, draw, compare
) -> None:
    """What the first pass left of the later steps must not count in the second."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    outputs = stepwise_each(leaves, keep)
    y = torch.stack(outputs)
    if before == "interrupted":

        def interrupt(grad: Tensor) -> None:
            raise KeyboardInterrupt

        hook = leaves["x"].register_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            y.backward(given["dy"], retain_graph=True)
        hook.remove()
        for leaf in leaves.values():
            leaf.grad = None
    else:
        inputs = list(leaves.values())[: 1 if before == "x alone" else 3]
        torch.autograd.grad(y, inputs, given["dy"], retain_graph=True)
    torch.stack(outputs[:2]).backward(given["dy"][:2])  # the later steps have no part in it
    want = wanted(given, keep, steps=2)
    compare(grads(leaves), {n: want[n] for n in grads(leaves)})


@every_kind
def test_backward_over_the_first_steps_only(any_engine: str, kind, given, draw, compare) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    torch.stack(stepwise_each(leaves, keep)[:2]).backward(given["dy"][:2])
    want = wanted(given, keep, steps=2)
    compare(grads(leaves), {n: want[n] for n in grads(leaves)})


@every_kind
def test_backward_in_two_parts(any_engine: str, kind, given, draw, compare) -> None:
    """Two losses over parts of the sequence add up to the loss over all of it."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    outputs = stepwise_each(leaves, keep)
    torch.stack(outputs[:2]).backward(given["dy"][:2], retain_graph=True)
    torch.stack(outputs[2:]).backward(given["dy"][2:])
    want = wanted(given, keep)
    compare(grads(leaves), {n: want[n] for n in grads(leaves)})


@every_kind
def test_steps_that_nothing_follows(any_engine: str, kind, given, draw, compare) -> None:
    """A step whose output is not used has no gradient and no part in the weight's."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    handle = ops.prepare(leaves["weight"], leaves["bias"])
    ops.masked_linear_step(handle, leaves["x"], keep, 0)
    y = loop(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])
    y.backward(given["dy"])
    compare({"y": y.detach(), **grads(leaves)}, wanted(given, keep))


@every_kind
def test_two_handles_of_one_weight(any_engine: str, kind, given, draw, compare) -> None:
    """Tied weights: each handle's gradient counts once."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    leaves = leaves_of(given)
    y = stepwise(leaves, keep) + 2 * stepwise(leaves, keep)
    y.backward(given["dy"])
    want = wanted(given, keep)
    compare(grads(leaves), {n: 3 * want[n] for n in grads(leaves)})


@every_kind
def test_sequences_that_end(any_engine: str, kind, given, draw, compare) -> None:
    """Each step has fewer samples than the one before."""
    keep = draw(kind, 0.5, T, B, D) if kind else None
    sizes = [3, 3, 2, 1, 1]

    def run(leaves: dict[str, Tensor], step: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
        x, outputs = leaves["x"], []
        for t, n in enumerate(sizes):
            x = torch.tanh(step(x[:n], t))
            outputs.append(x)
        y = torch.cat(outputs)
        y.backward(torch.cat([dy[:n] for dy, n in zip(given["dy"], sizes)]))
        return {"y": y.detach(), **grads(leaves)}

    leaves, plain = leaves_of(given), leaves_of(given)
    handle = ops.prepare(leaves["weight"], leaves["bias"])
    mask = None if keep is None else keep.mask().expand(T, B, D) * keep.scale

    def reference_step(x: Tensor, t: int) -> Tensor:
        x = x if mask is None else x * mask[t, : len(x)]
        return torch.nn.functional.linear(x, plain["weight"], plain["bias"])

    got = run(leaves, lambda x, t: ops.masked_linear_step(handle, x, keep, t))
    compare(got, run(plain, reference_step))


@every_kind
def test_without_gradients(any_engine: str, kind, given, draw, compare) -> None:
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    with torch.no_grad():
        y = stepwise(leaves_of(given), keep)
    assert not y.requires_grad
    compare({"y": y}, {"y": wanted(given, keep)["y"]})


def test_the_steps_in_any_order(any_engine: str, given, draw, compare) -> None:
    keep = draw("structured", 0.5, T, B, D)
    x = torch.randn(T, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for order in (range(T), [3, 0, 4, 2, 1]):
        leaves = leaves_of(given)
        handle = ops.prepare(leaves["weight"], leaves["bias"])
        y = {t: ops.masked_linear_step(handle, x[t], keep, t) for t in order}
        y = torch.stack([y[t] for t in range(T)])
        y.backward(given["dy"])
        results.append({"y": y.detach(), "dw": leaves["weight"].grad, "db": leaves["bias"].grad})
    compare(results[1], results[0])


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_what_is_dropped_is_never_read(any_engine: str, kind, given, draw, compare) -> None:
    keep = draw(kind, 0.5, T, B, D)
    want = wanted(given, keep)
    given["x"] = torch.where(keep.mask()[0], given["x"], torch.nan)
    leaves = leaves_of(given)
    y = stepwise(leaves, keep)
    y.backward(given["dy"])
    compare({"y": y.detach(), **grads(leaves)}, want)


@every_kind
@pytest.mark.parametrize("backward", ["full", "x alone", "none"])
def test_nothing_outlives_a_pass(any_engine: str, kind, backward: str, given, draw) -> None:
    """A cycle through the graph is beyond Python's collector, and would cost memory every batch."""
    keep = None if kind is None else draw(kind, 0.5, T, B, D)
    made: list[weakref.ref[Tensor]] = []

    def one_batch() -> None:
        leaves = leaves_of(given)
        handle = ops.prepare(leaves["weight"], leaves["bias"])
        x, outputs = leaves["x"], []
        for t in range(T):
            y = ops.masked_linear_step(handle, x, keep, t)
            x = torch.tanh(y)
            outputs.append(x)
            made.extend(weakref.ref(tensor) for tensor in (x, y))
        if backward == "full":
            torch.stack(outputs).backward(given["dy"])
        elif backward == "x alone":
            torch.autograd.grad(x, leaves["x"], given["dy"][0], retain_graph=True)

    one_batch()
    assert len(made) == 2 * T
    assert [tensor() for tensor in made if tensor() is not None] == []


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
