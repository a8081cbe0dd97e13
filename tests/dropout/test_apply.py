"""Dropping as a GPU does it: the same values and gradients, at any layout, sent once."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd import DropoutPattern
from opennmt_sd.dropout import apply, steps
from opennmt_sd.dropout.apply import compact, sent

T, B, D = 4, 3, 5
KINDS = pytest.mark.parametrize(
    ("space", "time"), [(s, t) for s in ("structured", "random") for t in ("random", "fixed")]
)


@KINDS
@pytest.mark.parametrize("draw", ["draw", "draw_mask"])
@pytest.mark.parametrize("sizes", [None, [3, 3, 3, 3], [3, 2, 2, 1]], ids=str)
def test_a_launch_is_an_application(
    monkeypatch: pytest.MonkeyPatch, space: str, time: str, draw: str, sizes
) -> None:
    keep = getattr(DropoutPattern(0.5, space, time), draw)(T, B, D)
    x = torch.randn((T, B, D) if sizes is None else (sum(sizes), D), requires_grad=True)
    packed = None if sizes is None else torch.tensor(sizes)
    found = []
    for launched in (False, True):
        monkeypatch.setattr(apply, "launches", lambda _, is_=launched: is_)
        y = keep.apply(x, packed)
        found.append((y, *torch.autograd.grad(y.pow(2).sum(), x)))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@KINDS
@pytest.mark.parametrize("launched", [False, True])
def test_step_by_step(
    monkeypatch: pytest.MonkeyPatch, space: str, time: str, launched: bool
) -> None:
    keep = DropoutPattern(0.5, space, time).draw(T, B, D)
    x = torch.randn(T, B, D)
    want = [keep.apply_step(x[t, :n], t) for t, n in enumerate([3, 3, 2, 1])]
    monkeypatch.setattr(steps, "launches", lambda _: launched)
    drop = steps.Steps(keep, x)
    for t, of_step in enumerate(want):
        assert torch.equal(drop(x[t, : len(of_step)], t), of_step)


def test_no_rows() -> None:
    keep = DropoutPattern(0.5).draw(0, B, D)
    assert keep._launched(torch.zeros(0, D), torch.tensor([], dtype=torch.int64)).shape == (0, D)


def test_what_all_samples_share_travels_once() -> None:
    keep = DropoutPattern(0.5).draw_mask(T, B, D)
    assert keep.dense.shape == (T, B, D)
    x = torch.zeros(T, B, D, dtype=torch.bfloat16, device="meta")
    factors = keep.factors(x)
    assert (factors.shape, factors.dtype, factors.device) == ((T, 1, D), x.dtype, x.device)
    assert keep.dropped(x.device).shape == (T, 1, D)
    of_each = DropoutPattern(0.5, "random").draw_mask(T, B, D).dense
    assert compact(of_each) is of_each


def test_what_is_there_is_not_sent() -> None:
    x = torch.zeros(3)
    assert sent(x, "cpu") is x
    assert sent(x, "meta").is_meta
