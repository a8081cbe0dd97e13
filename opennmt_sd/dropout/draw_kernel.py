"""The kernels of a draw: Philox4x32-10, as :mod:`opennmt_sd.dropout.philox` has it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["seed", "n", "blocks", "threshold", "kept", "dropped"])
def draw(out, seed, n, blocks, threshold, kept, dropped, BLOCK: tl.constexpr):
    """Write one of two values for each of n units: word w of block i decides over unit
    w * blocks + i."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], dtype=tl.int32)
    first, second, third, fourth = tl.philox(seed, i, zero, zero, zero)
    unit = i.to(tl.int64)  # there may be more than 2^31
    write(out, first, unit, n, threshold, kept, dropped, i < blocks)
    write(out, second, unit + blocks, n, threshold, kept, dropped, i < blocks)
    unit += blocks
    write(out, third, unit + blocks, n, threshold, kept, dropped, i < blocks)
    unit += blocks
    write(out, fourth, unit + blocks, n, threshold, kept, dropped, i < blocks)


@triton.jit
def write(out, bits, unit, n, threshold, kept, dropped, alive):
    keeps = (bits.to(tl.int64) & 0xFFFFFFFF) >= threshold
    value = tl.where(keeps, kept, dropped).to(out.dtype.element_ty)
    tl.store(out + unit, value, mask=alive & (unit < n))


@triton.jit(do_not_specialize=["seed", "blocks", "D", "k", "kept", "dropped"])
def draw_exact(out, seed, blocks, D, k, kept, dropped, BLOCK: tl.constexpr):
    """Write one of two values for each of D units of a set: kept are the k with the smallest bits,
    of equal ones the first. A unit counts those before it, whose bits are made anew each time."""
    row = tl.program_id(0).to(tl.int64) * D
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    bits = bits_of(seed, row + unit, blocks, BLOCK)
    rank = tl.zeros([BLOCK], dtype=tl.int32)
    for start in range(0, D, BLOCK):
        other = start + tl.arange(0, BLOCK)
        theirs = bits_of(seed, row + other, blocks, BLOCK)
        first = (theirs[None, :] == bits[:, None]) & (other[None, :] < unit[:, None])
        before = (theirs[None, :] < bits[:, None]) | first
        rank += tl.sum((before & (other < D)[None, :]).to(tl.int32), 1)
    value = tl.where(rank < k, kept, dropped).to(out.dtype.element_ty)
    tl.store(out + row + unit, value, mask=unit < D)


@triton.jit
def bits_of(seed, unit, blocks, BLOCK: tl.constexpr):
    """Return the bits of units, int64: word w of block i is that of unit w * blocks + i."""
    word = unit // blocks
    zero = tl.zeros([BLOCK], dtype=tl.int32)
    first, second, third, fourth = tl.philox(seed, (unit % blocks).to(tl.int32), zero, zero, zero)
    low = tl.where(word == 0, first, second)
    return tl.where(word < 2, low, tl.where(word == 2, third, fourth)).to(tl.int64) & 0xFFFFFFFF
