"""Sets that rows of many steps share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, KeepMask, KeepSets
from opennmt_sd.dropout.staggered import ROWS, StaggeredSets
from opennmt_sd.seq2seq import loss

# T, B, D
SIZES = [(7, 5, 13), (6, 40, 16), (20, 33, 9), (2, 33, 30), (1, 1, 4), (1, 3, 4), (4, 1, 8)]


def draw(T: int, B: int, D: int, p: float = 0.5) -> StaggeredSets:
    generator = torch.Generator().manual_seed(T * B)
    sets = DropoutPattern(p).draw(StaggeredSets.count(T, B), B, D, generator)
    return StaggeredSets.of(sets, T, B)


@pytest.mark.parametrize(("T", "B", "D"), SIZES)
def test_a_sample_takes_one_set_after_the_other(T: int, B: int, D: int) -> None:
    keep = draw(T, B, D)
    sets, mask = keep.sets.mask(), keep.mask()
    S = len(sets)
    assert (keep.steps, keep.width, mask.shape) == (T, D, (T, B, D))
    for t in range(T):
        for b in range(B):
            assert torch.equal(mask[t, b], sets[(t + b * S // B) % S, 0]), (t, b)


@pytest.mark.parametrize(("T", "B"), [(20, 64), (80, 256), (3, 64), (50, 20), (30, 31), (7, 5)])
def test_all_sets_serve_as_many_rows_or_a_sample_of_each(T: int, B: int) -> None:
    keep = draw(T, B, 4)
    numbers = keep.numbers()
    counts = numbers.flatten().bincount(minlength=keep.sets.steps)
    rows = min(ROWS, B)
    assert int(counts.max() - counts.min()) <= max(counts.max() // 4, 1)
    assert float(counts.float().mean()) == pytest.approx(rows, rel=0.02)
    for b in range(B):
        assert len(set(numbers[:, b].tolist())) == T, "a sample has a new set at each step"


@pytest.mark.parametrize(("T", "B", "D"), SIZES)
def test_it_drops_by_its_mask_whatever_the_form(T: int, B: int, D: int) -> None:
    keep, x = draw(T, B, D), torch.randn(T, B, D)
    want = torch.where(keep.mask(), x * 2, torch.zeros(()))
    assert torch.equal(keep.apply(x), want)
    sizes = torch.tensor([max(B - 2 * t, 1) for t in range(T)])
    alive = torch.arange(B) < sizes[:, None]
    assert torch.equal(keep.apply(x[alive], sizes), want[alive])
    assert torch.equal(x * keep.factors(x), want)
    assert torch.equal(keep.dropped(x.device), ~keep.mask())
    for t in range(T):
        assert torch.equal(keep.apply_step(x[t, :1], t), want[t, :1])
        assert torch.equal(keep[t].apply_alone(x[t]), want[t])
    of_masks = StaggeredSets(KeepMask(keep.sets.mask(), keep.scale), keep.first, T)
    assert torch.equal(of_masks.apply(x), want)


@pytest.mark.parametrize(("T", "B", "D"), SIZES)
def test_rows_in_the_order_of_their_sets(T: int, B: int, D: int) -> None:
    keep = draw(T, B, D)
    rows = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.7
    order, sizes = keep.by_set(rows)
    assert sorted(order.tolist()) == list(range(int(rows.sum())))
    assert isinstance(keep.sets, KeepSets)
    assert len(sizes) == keep.sets.steps
    x = torch.ones(int(rows.sum()), D)
    want = (keep.mask()[rows] * 2.0)[order]
    assert torch.equal(keep.sets.apply(x, sizes), want)
    assert torch.equal(keep.sets._launched(x, sizes), want), "as on a GPU"


@pytest.mark.parametrize("engine", ["cpu", "portable", "naive"])
@pytest.mark.parametrize("padding", ["at the end", "anywhere", "alone"])
@pytest.mark.parametrize(("T", "B", "D"), SIZES)
def test_the_loss_is_that_of_a_masked_input(
    T: int, B: int, D: int, engine: str, padding: str
) -> None:
    keep = draw(T, B, D)
    g = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, T + 1, (B,), generator=g)
    lengths[0] = T
    words = {
        "at the end": torch.arange(T) < lengths[:, None],
        "anywhere": torch.rand(B, T, generator=g) < 0.6,
        "alone": torch.zeros(B, T, dtype=torch.bool),
    }[padding]
    target = torch.randint(1, 37, (B, T), generator=g) * words
    generator, criterion = nn.Linear(D, 37), nn.CrossEntropyLoss(ignore_index=0, reduction="sum")
    raw = torch.randn(B, T, D)

    def result(kept: StaggeredSets | None) -> list[Tensor]:
        x = raw.clone().requires_grad_()
        output = keep.apply(x.transpose(0, 1)).transpose(0, 1)
        if kept is None:
            value = criterion(generator(output).flatten(0, 1), target.flatten())
        else:
            loss.mark_kept(output, kept)
            with ops.use(engine):
                found = loss.projected_loss(generator, output, target, 0, criterion)
            assert found is not None
            assert found.words == int(words.sum())
            value = found.loss
        return [value, *torch.autograd.grad(value, [x, *generator.parameters()])]

    torch.testing.assert_close(result(keep), result(None))
