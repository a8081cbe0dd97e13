"""The point of it all: FP, BP and WG of a structured draw multiply only what is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.dropout import Keep

T, B, D, N = 8, 4, 200, 120
P = 0.65


def flops(run: Callable[[], Tensor]) -> int:
    """Of matrix products; additions and copies are not counted."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def product(forward: Callable[[], Tensor], leaf: Tensor | None = None) -> int:
    """FLOPs of the forward pass, or of the gradient of one leaf alone."""
    if leaf is None:
        return flops(forward)
    y = forward()
    return flops(lambda: torch.autograd.grad(y.sum(), leaf)[0])


def share_kept(keep: Keep, T: int) -> float:
    return keep.mask().expand(T, -1, -1).double().mean().item()


@pytest.fixture(params=["random", "fixed"])
def pattern(request: pytest.FixtureRequest) -> DropoutPattern:
    return DropoutPattern(P, time=request.param)


@pytest.mark.parametrize("sizes", [None, [4, 4, 3, 3, 2, 2, 1, 1]], ids=["padded", "packed"])
@pytest.mark.parametrize("phase", ["FP", "BP", "WG"])
def test_masked_linear(compacting: str, phase: str, sizes, pattern: DropoutPattern) -> None:
    rows = sum(sizes) if sizes else T * B
    x = torch.randn((rows, D) if sizes else (T, B, D), requires_grad=phase == "BP")
    weight = torch.randn(N, D, requires_grad=phase == "WG")
    packed = None if sizes is None else torch.tensor(sizes)
    keep = pattern.draw(T, B, D, torch.Generator().manual_seed(1))
    leaf = {"FP": None, "BP": x, "WG": weight}[phase]
    with ops.use(compacting):
        count = product(lambda: ops.masked_linear(x, keep, weight, batch_sizes=packed), leaf)
    kept = keep.mask().expand(T, 1, D).sum((1, 2)).tolist()  # units a step
    exact = sum(2 * n * k * N for n, k in zip(sizes or [B] * T, kept))
    assert count == exact
    dense = 2 * rows * D * N
    assert count / dense == pytest.approx(1 - P, abs=0.08)  # one draw: +-5 %, wider if fixed


@pytest.mark.parametrize("leaf", [None, "x", "weight_ih", "weight_hh"])
def test_a_layer(compacting: str, cell, leaf: str | None, pattern: DropoutPattern) -> None:
    """The input's products and the recurrence's, each as far as a gradient needs them."""
    H = N
    made = cell.make(T, B, D, H, dtype=torch.float32)
    given = cell.leaves(made, without=set(made) - {leaf})
    keeps = [pattern.draw(T, B, n, torch.Generator().manual_seed(1)) for n in (D, H)]

    def forward() -> Tensor:
        return cell(given, keeps)[0]

    with ops.use(compacting):
        count = product(forward, given.get(leaf))
    inputs, states = (
        round(2 * T * B * n * cell.gates * H * share_kept(keep, T))
        for n, keep in zip((D, H), keeps)
    )
    # Forward both; the gradient of the gates (the recurrence backwards), then one product more.
    assert count == states + (states if leaf == "weight_hh" else inputs)


@pytest.mark.parametrize("phase", ["FP", "BP", "WG"])
def test_stepwise(compacting: str, phase: str, pattern: DropoutPattern) -> None:
    x = torch.randn(B, D, requires_grad=phase == "BP")
    weight = torch.randn(D, D, requires_grad=phase == "WG")
    keep = pattern.draw(T, B, D, torch.Generator().manual_seed(1))
    leaf = {"FP": None, "BP": x, "WG": weight}[phase]

    def forward() -> Tensor:
        handle = ops.prepare(weight)
        return torch.stack([ops.masked_linear_step(handle, x, keep, t) for t in range(T)])

    with ops.use(compacting):
        count = product(forward, leaf)
    assert count / (2 * T * B * D * D) == pytest.approx(share_kept(keep, T), rel=1e-6)


def test_the_dense_weight_gradient_of_steps_is_one_product(engine: str) -> None:
    """Not one a step: that is what the handle is for."""
    weight = torch.randn(N, D, requires_grad=True)
    with ops.use(engine):
        handle = ops.prepare(weight)
        y = torch.stack([ops.masked_linear_step(handle, torch.randn(B, D)) for _ in range(T)])
    with torch.autograd.profiler.profile() as profile:
        y.sum().backward()
    products = ("aten::mm", "aten::addmm", "opennmt_sd::steps_wg")
    assert sum(e.count for e in profile.key_averages() if e.key in products) == 1


def test_naive_is_dense(pattern: DropoutPattern) -> None:
    """So that the counts above are known to compare with something."""
    x, weight = torch.randn(T, B, D), torch.randn(N, D)
    with ops.use("naive"):
        keep = pattern.draw(T, B, D)
        assert flops(lambda: ops.masked_linear(x, keep, weight)) == 2 * T * B * D * N
