"""Dropping on a CPU: what is large goes by words of ones and zeros, with the bits of `where`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from opennmt_sd.dropout import DropoutPattern, apply
from opennmt_sd.dropout.steps import Steps

T, B, D = 4, 3, 5
SIZES = torch.tensor([3, 3, 2, 1])


def ways(monkeypatch: pytest.MonkeyPatch, run) -> tuple[Tensor, Tensor]:
    """Run with `where`, and with words."""
    cut, calls = apply._cut, []
    monkeypatch.setattr(apply, "_cut", lambda *given: calls.append(given) or cut(*given))
    monkeypatch.setattr(apply, "BRANCHES", math.inf)
    expected = run()
    assert not calls
    monkeypatch.setattr(apply, "BRANCHES", 0)
    found = run()
    assert calls
    return expected, found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [DropoutPattern(0.3), DropoutPattern(0.3, time="fixed"), DropoutPattern(0.3, space="random")],
    ids=str,
)
def test_bits_are_those_of_where(pattern, packed, dtype, monkeypatch) -> None:
    keep = pattern.draw(T, B, D, torch.Generator().manual_seed(1))
    x = torch.randn(9, D) if packed else torch.randn(T, B, D)
    x = x.to(dtype)
    for first, value in enumerate((math.nan, math.inf, -0.0)):
        x.view(-1)[first::7] = value
    d = torch.randn_like(x)

    def run() -> Tensor:
        given = x.clone().requires_grad_()
        y = keep.apply(given, SIZES if packed else None)
        y.backward(d)
        return torch.stack([y.detach(), given.grad])

    expected, found = ways(monkeypatch, run)
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))  # of a NaN too


def test_what_is_dropped_is_never_read(monkeypatch) -> None:
    monkeypatch.setattr(apply, "BRANCHES", 0)
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    kept = keep.mask().expand(T, B, D)
    y = keep.apply(torch.full((T, B, D), math.nan))
    assert torch.equal(y.isnan(), kept)
    assert (y[~kept] == 0).all()


def test_of_any_strides_and_a_step_at_a_time(monkeypatch) -> None:
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    x = torch.randn(B, D, T).permute(2, 0, 1)

    def run() -> Tensor:
        return keep.apply(x)

    expected, found = ways(monkeypatch, run)
    assert torch.equal(found, expected)
    steps = Steps(keep, x)
    assert torch.equal(torch.stack([steps(x[t], t) for t in range(T)]), expected)


def test_derivatives_of_derivatives(monkeypatch) -> None:
    monkeypatch.setattr(apply, "BRANCHES", 0)
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(keep.apply, x)
    found = torch.func.vmap(torch.func.grad(lambda x: keep.apply(x).pow(2).sum()))(
        x.expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(found[1], (2 * keep.apply(x) * keep.scale).detach())


def test_a_batch_of_gradients(monkeypatch) -> None:
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    x, d = torch.randn(T, B, D, requires_grad=True), torch.randn(3, T, B, D)

    def run() -> Tensor:
        return torch.autograd.grad(keep.apply(x), x, d, is_grads_batched=True)[0]

    expected, found = ways(monkeypatch, run)
    assert torch.equal(found, expected)


def test_whole_numbers_become_floats_also_where_they_are_many(monkeypatch) -> None:
    monkeypatch.setattr(apply, "BRANCHES", 0)
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    y = keep.apply(torch.ones(T, B, D, dtype=torch.int64))
    assert y.dtype == torch.float32
    assert torch.equal(y, keep.apply(torch.ones(T, B, D)))


@pytest.mark.parametrize("grad", [False, True])
def test_a_view_that_is_negative_in_name_only(grad: bool, monkeypatch) -> None:
    keep = DropoutPattern(0.5).draw(T, B, D, torch.Generator().manual_seed(1))
    x = torch.randn(T, B, D, dtype=torch.complex64).conj().imag
    assert x.is_neg()

    def run() -> Tensor:
        return keep.apply(x.requires_grad_() if grad else x)

    expected, found = ways(monkeypatch, run)
    assert torch.equal(found, expected)
