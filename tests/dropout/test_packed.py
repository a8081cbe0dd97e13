"""What packed rows take of a mask: made once for all that drops from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from opennmt_sd import DropoutPattern
from opennmt_sd.dropout import packed

SIZES, B, D = [3, 2, 2, 1], 3, 5
CPU = torch.device("cpu")


@pytest.fixture
def batch_sizes() -> Tensor:
    return torch.tensor(SIZES)


@pytest.mark.parametrize("samples", [1, B])
@pytest.mark.parametrize("each_step", [True, False])
def test_a_row_takes_its_steps_and_its_samples(
    batch_sizes: Tensor, samples: int, each_step: bool
) -> None:
    want = [
        (t * samples if each_step else 0) + (b if samples > 1 else 0)
        for t, n in enumerate(SIZES)
        for b in range(n)
    ]
    assert packed.rows_of_mask(batch_sizes, sum(SIZES), CPU, samples, each_step).tolist() == want


def test_places_that_drop_differently_share_nothing(batch_sizes: Tensor) -> None:
    """Masks of samples, of steps, and of one step for all, one after the other on the same rows."""
    x = torch.randn(sum(SIZES), D)
    whole = torch.zeros(len(SIZES), B, D)
    rows = [(t, b) for t, n in enumerate(SIZES) for b in range(n)]
    for r, (t, b) in enumerate(rows):
        whole[t, b] = x[r]
    for space in ("random", "structured"):
        for time in ("random", "fixed"):
            keep = DropoutPattern(0.5, space, time).draw(len(SIZES), B, D)
            dropped = keep.apply(whole)
            want = torch.stack([dropped[t, b] for t, b in rows])
            assert torch.equal(keep.apply(x, batch_sizes), want)


def test_made_once_a_batch(batch_sizes: Tensor) -> None:
    made = []

    def make() -> Tensor:
        made.append(1)
        return torch.arange(3)

    one, again = (packed.of_batch(batch_sizes, CPU, "rows", make) for _ in range(2))
    assert one is again
    assert len(made) == 1
    packed.of_batch(batch_sizes.clone(), CPU, "rows", make)
    packed.of_batch(batch_sizes, CPU, "others", make)
    assert len(made) == 3


def test_what_was_made_without_gradients_serves_with_them(batch_sizes: Tensor) -> None:
    keep = DropoutPattern(0.5, "random").draw(len(SIZES), B, D)
    x = torch.randn(sum(SIZES), D, requires_grad=True)
    with torch.inference_mode():
        keep.apply(x, batch_sizes)
    keep.apply(x, batch_sizes).sum().backward()
    assert x.grad is not None


def test_sizes_that_were_changed_in_place_are_other_sizes(batch_sizes: Tensor) -> None:
    keep = DropoutPattern(0.5, "random").draw(len(SIZES), B, D)
    x = torch.ones(sum(SIZES), D)
    keep.apply(x, batch_sizes)
    others = torch.tensor([3, 3, 1, 1])
    batch_sizes.numpy()[:] = others.numpy()  # no counter of torch's sees that
    assert torch.equal(keep.apply(x, batch_sizes), keep.apply(x, others))


def test_rows_without_data_are_not_noted(batch_sizes: Tensor) -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        packed.rows_of_mask(batch_sizes, sum(SIZES), CPU, B, True)
    assert packed.rows_of_mask(batch_sizes, sum(SIZES), CPU, B, True).tolist() == [
        0, 1, 2, 3, 4, 6, 7, 9,
    ]  # fmt: skip


def test_as_many_rows_as_if_all_steps_had_the_same() -> None:
    """On a GPU factors broadcast where all steps have as many rows, and only there."""
    keep = DropoutPattern(0.5).draw(3, 3, 8, torch.Generator().manual_seed(1))
    x, sizes = torch.randn(6, 8), torch.tensor([2, 1, 3])
    assert torch.equal(keep._launched(x, sizes), keep.apply(x, sizes))
