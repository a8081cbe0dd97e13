"""A draw by Triton's kernel has the bits of the CPU's; what is listed is what is kept."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd.dropout import DropoutPattern, on_gpu, philox

SHAPES = {"sets": ((35, 1, 65), 0.5), "masks": ((3, 4, 7), 0.3), "one": ((1, 1, 1), 0.999),
          "more than a block": ((2, 5, 211), 0.65)}  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2**62 + 12_345_678_901])
@pytest.mark.parametrize("name", SHAPES)
def test_the_bits_of_the_cpu(kernels, name: str, seed: int) -> None:
    from opennmt_sd.dropout.draw_kernel import draw

    shape, p = SHAPES[name]
    want = philox.mask_of(torch.tensor([seed]), shape, p)
    out, blocks = torch.full(shape, 9.0), -(-want.numel() // 4)
    grid = (-(-blocks // on_gpu.BLOCK),)
    draw[grid](out, seed, want.numel(), blocks, philox.threshold(p), 2.0, -1.0, BLOCK=on_gpu.BLOCK)
    assert torch.equal(out, torch.where(want, 2.0, -1.0))


EXACT = {"sets": (35, 65, 20), "one": (1, 1, 1), "all": (2, 7, 7), "none": (2, 7, 0),
         "a whole block": (3, on_gpu.RANKED, 1), "blocks": (4, 211, 148)}  # fmt: skip

# A seed of which two units in 700 have equal bits, the 692nd smallest: 237 and 288.
TIE = (25_595, 700, 692)


@pytest.mark.parametrize("seed", [1, 2**62 + 12_345_678_901])
@pytest.mark.parametrize("name", EXACT)
def test_the_units_of_the_cpu_where_their_number_is_exact(kernels, name: str, seed: int) -> None:
    assert_exact(seed, *EXACT[name])


def test_of_equal_bits_the_first_unit_is_kept(kernels) -> None:
    seed, D, k = TIE
    bits = philox.random_bits(seed, D)
    assert len({int(b) for b in bits.sort().values[k - 1 : k + 1]}) == 1
    assert_exact(seed, 1, D, k)


def assert_exact(seed: int, S: int, D: int, k: int) -> None:
    from opennmt_sd.dropout.draw_kernel import draw_exact

    want = philox.draw_exact_mask(torch.tensor([seed]), S, D, k)
    out, blocks = torch.full((S, 1, D), 9.0), -(-S * D // 4)
    grid = (S, -(-D // on_gpu.RANKED))
    draw_exact[grid](out, seed, blocks, D, k, 2.0, -1.0, BLOCK=on_gpu.RANKED)
    assert torch.equal(out[:, 0], torch.where(want, 2.0, -1.0))


MASKS = {"structured": {}, "random": {"space": "random"}, "exact": {"count": "exact"},
         "exact, fixed": {"count": "exact", "time": "fixed"}}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_by_the_kernel_is_the_mask(kernels, monkeypatch, name: str) -> None:
    monkeypatch.setattr(on_gpu, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    keep = DropoutPattern(0.3, **MASKS[name]).draw_mask(3, 4, 7)
    factors = {d: keep.factors(torch.ones(1, dtype=d)) for d in (torch.float32, torch.float16)}
    dropped = keep.dropped(torch.device("cpu"))
    assert keep.__dict__["drawn"] is None  # all of that by the kernel
    assert torch.equal(~dropped.expand_as(keep.dense), keep.dense)
    for dtype, found in factors.items():
        assert torch.equal(found.expand_as(keep.dense), keep.dense.to(dtype) * keep.scale)


@pytest.mark.parametrize("H", [1, 7, 64])
def test_what_is_kept_is_listed(kernels, H: int) -> None:
    from opennmt_sd.ops.triton.operands import listed

    dropped = torch.rand(5, 1, H, generator=torch.Generator().manual_seed(0)) < 0.5
    kept, count = listed(dropped.view(torch.uint8))
    assert [kept[s, : count[s]].tolist() for s in range(5)] == [
        (~dropped[s, 0]).nonzero().flatten().tolist() for s in range(5)
    ]
