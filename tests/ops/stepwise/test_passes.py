"""Backward passes over steps: several, over a part, interrupted; each counts what it should."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.ops.cpu import native

T, B, D = 5, 3, 6


def test_retained_and_accumulated(any_engine: str, keep, steps, compare) -> None:
    leaves = steps.leaves()
    y = steps.run(leaves, keep)
    y.backward(steps.given["dy"], retain_graph=True)
    y.backward(steps.given["dy"])
    want = steps.wanted(keep)
    compare(steps.grads(leaves), {n: 2 * want[n] for n in steps.grads(leaves)})


def test_a_pass_for_x_alone_leaves_nothing_behind(any_engine: str, keep, steps, compare) -> None:
    """A pass that does not ask for the weight must not count in the next one that does."""
    leaves = steps.leaves()
    y = steps.run(leaves, keep)
    want = steps.wanted(keep)
    (dx,) = torch.autograd.grad(y, leaves["x"], 3 * steps.given["dy"], retain_graph=True)
    compare({"dx": dx}, {"dx": 3 * want["dx"]})
    torch.autograd.grad(y[:, 0], leaves["x"], steps.given["dy"][:, 0], retain_graph=True)
    y.backward(steps.given["dy"])
    compare(steps.grads(leaves), {n: want[n] for n in steps.grads(leaves)})


@pytest.mark.parametrize("before", ["x alone", "everything", "interrupted"])
def test_a_pass_over_all_steps_and_then_over_a_few(
    any_engine: str, keep, before: str, steps, compare
) -> None:
    """What the first pass left of the later steps must not count in the second."""
    leaves = steps.leaves()
    outputs = steps.each(leaves, keep)
    y = torch.stack(outputs)
    if before == "interrupted":

        def interrupt(grad: Tensor) -> None:
            raise KeyboardInterrupt

        hook = leaves["x"].register_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            y.backward(steps.given["dy"], retain_graph=True)
        hook.remove()
        for leaf in leaves.values():
            leaf.grad = None
    else:
        inputs = list(leaves.values())[: 1 if before == "x alone" else 3]
        torch.autograd.grad(y, inputs, steps.given["dy"], retain_graph=True)
    # Now the later steps have no part in it.
    torch.stack(outputs[:2]).backward(steps.given["dy"][:2])
    want = steps.wanted(keep, steps=2)
    compare(steps.grads(leaves), {n: want[n] for n in steps.grads(leaves)})


def test_backward_over_the_first_steps_only(any_engine: str, keep, steps, compare) -> None:
    leaves = steps.leaves()
    torch.stack(steps.each(leaves, keep)[:2]).backward(steps.given["dy"][:2])
    want = steps.wanted(keep, steps=2)
    compare(steps.grads(leaves), {n: want[n] for n in steps.grads(leaves)})


def test_backward_in_two_parts(any_engine: str, keep, steps, compare) -> None:
    """Two losses over parts of the sequence add up to the loss over all of it."""
    leaves = steps.leaves()
    outputs = steps.each(leaves, keep)
    torch.stack(outputs[:2]).backward(steps.given["dy"][:2], retain_graph=True)
    torch.stack(outputs[2:]).backward(steps.given["dy"][2:])
    want = steps.wanted(keep)
    compare(steps.grads(leaves), {n: want[n] for n in steps.grads(leaves)})


def test_steps_that_nothing_follows(any_engine: str, keep, steps, compare) -> None:
    """A step whose output is not used has no gradient and no part in the weight's."""
    leaves = steps.leaves()
    handle = ops.prepare(leaves["weight"], leaves["bias"])
    ops.masked_linear_step(handle, leaves["x"], keep, 0)
    y = torch.stack(
        steps.loop(lambda x, t: ops.masked_linear_step(handle, x, keep, t), leaves["x"])
    )
    y.backward(steps.given["dy"])
    compare({"y": y.detach(), **steps.grads(leaves)}, steps.wanted(keep))


def test_two_handles_of_one_weight(any_engine: str, keep, steps, compare) -> None:
    """Tied weights: each handle's gradient counts once."""
    leaves = steps.leaves()
    y = steps.run(leaves, keep) + 2 * steps.run(leaves, keep)
    y.backward(steps.given["dy"])
    want = steps.wanted(keep)
    compare(steps.grads(leaves), {n: 3 * want[n] for n in steps.grads(leaves)})


@pytest.mark.parametrize("backward", ["full", "x alone", "none"])
def test_nothing_outlives_a_pass(any_engine: str, keep, backward: str, steps) -> None:
    """A cycle through the graph is beyond Python's collector, and would cost memory every batch."""
    made: list[weakref.ref[Tensor]] = []

    def one_batch() -> None:
        leaves = steps.leaves()
        handle = ops.prepare(leaves["weight"], leaves["bias"])
        x, outputs = leaves["x"], []
        for t in range(T):
            y = ops.masked_linear_step(handle, x, keep, t)
            x = torch.tanh(y)
            outputs.append(x)
            made.extend(weakref.ref(tensor) for tensor in (x, y))
        if backward == "full":
            torch.stack(outputs).backward(steps.given["dy"])
        elif backward == "x alone":
            torch.autograd.grad(x, leaves["x"], steps.given["dy"][0], retain_graph=True)

    one_batch()
    assert len(made) == 2 * T
    assert [tensor() for tensor in made if tensor() is not None] == []


SHAPES = [(D, D), (1, 4), (4, 1)]  # a narrow one is its own transpose


def changed_in_place(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A step's output and its input, whose weight of ones has changed since."""
    weight = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    x = torch.ones(2, shape[1], dtype=torch.float64, requires_grad=True)
    y = ops.masked_linear_step(ops.prepare(weight), x)
    with torch.no_grad():
        weight.mul_(100)
    return y, x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["naive", "dense"])
def test_a_weight_that_was_changed_is_refused(name: str, shape: tuple[int, int]) -> None:
    """As by torch, where it is read again."""
    with ops.use(name):
        y, _ = changed_in_place(shape)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["portable", "cpu"])
def test_a_packed_weight_counts_as_it_was(name: str, shape: tuple[int, int]) -> None:
    if name == "cpu" and native() is None:
        pytest.skip("the native module was not built")
    with ops.use(name):
        y, x = changed_in_place(shape)
        y.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, shape[0]))
