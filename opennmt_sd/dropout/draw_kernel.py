"""The kernel of a draw: Philox4x32-10, as :mod:`opennmt_sd.dropout.philox` has it."""

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
