"""What the kernels of both cells do alike: the products of a step, and waiting for each other.

A program owns U units of up to BT samples, and all their gates. In a step it multiplies what all
programs wrote in the step before, and writes its own part.

Axis names: T time, B batch, H hidden, G gates; R rows of all steps, those of a step together.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Arguments that a kernel is not compiled anew for.
RUNTIME = ["begin", "end", "T", "B", "S", "samples", "scale"]


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def arrive(arrived):
    """Tell the others that what this program has written can be read."""
    tl.debug_barrier()  # all threads of the program have written
    tl.atomic_add(arrived, 1, sem="release", scope="gpu")


@triton.jit
def wait(arrived, target):
    """Wait until so many have arrived. All programs must be on the device at once, or nobody ever
    leaves."""
    while tl.load(arrived, volatile=True) < target:
        pass
    tl.atomic_add(arrived, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()


@triton.jit
def list_kept(dropped, kept, count, H, BLOCK: tl.constexpr):
    """Write the units that a step keeps, in front, and how many: a program for each set."""
    s = tl.program_id(0)
    u = tl.arange(0, BLOCK)
    keeps = tl.load(dropped + s * H + u, mask=u < H, other=1) == 0
    place = tl.cumsum(keeps.to(tl.int32), 0) - 1
    tl.store(kept + s * H + place, u, mask=keeps)
    tl.store(count + s, tl.sum(keeps.to(tl.int32), 0))


@triton.jit
def owned(B, H, BT: tl.constexpr, U: tl.constexpr):
    """Return the samples and units of a program, where in ``[B, H]`` they lie, and which there
    are."""
    b, u = tl.program_id(1) * BT + tl.arange(0, BT), tl.program_id(0) * U + tl.arange(0, U)
    return b, u, b[:, None] * H + u[None, :], (b < B)[:, None] & (u < H)[None, :]


@triton.jit
def rows_of(sizes, offsets, t, B, PACKED: tl.constexpr):
    """Return how many samples are alive at step t, and the first of their rows."""
    if PACKED:
        n, row = tl.load(sizes + t), tl.load(offsets + t).to(tl.int64)
    else:
        n, row = B, t.to(tl.int64) * B
    return n, row


@triton.jit
def masked_at(x, dropped, t, b, u, alive, H, S, samples, scale, DROPS: tl.constexpr):
    """Return x ``[BT, U]`` scaled, with zeros where step t drops."""
    x = x * scale
    if DROPS:
        of_step = tl.where(S > 1, t, 0).to(tl.int64) * samples
        row = of_step + tl.where(samples > 1, b, 0)
        at = row[:, None] * H + u[None, :]
        x = tl.where(tl.load(dropped + at, mask=alive, other=1) != 0, 0.0, x)
    return x


@triton.jit
def in_rows(first, K: tl.constexpr, SPLIT: tl.constexpr):
    """Return the numbers of K summands, along the rows of an operand ``[SPLIT, ., K / SPLIT]``:
    each slice is summed up by warps of its own."""
    of_slice = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT)
    return first + of_slice + tl.arange(0, K // SPLIT)[None, None, :]


@triton.jit
def in_columns(first, K: tl.constexpr, SPLIT: tl.constexpr):
    """Return the same along the columns of the other operand, ``[SPLIT, K / SPLIT, .]``."""
    of_slice = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT)
    return first + of_slice + tl.arange(0, K // SPLIT)[None, :, None]


@triton.jit
def fp_product(
    h, stride, weight, kept, count, t, row, n, b, part, S, H, columns,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, COMPACT: tl.constexpr,
):  # fmt: skip
    """Return the product of a step, four gates of a unit side by side, ``[BT, 4U]``.

    Args:
        h: masked and scaled, ``[R, stride]``.
        weight: ``[H, programs, U, 4]``.
        kept, count: the units that each step keeps, ``[S, H]``, and how many.
        b, n: the samples of this program, and how many are alive.
        K, SPLIT: summands at a time, and into how many parts they are split.
    """
    acc = tl.zeros([SPLIT, BT, 4 * U], dtype=tl.float32)
    rows = h + (row + b)[None, :, None] * stride
    mine = weight + part * 4 * U + tl.arange(0, 4 * U)[None, None, :]
    alive = (b < n)[None, :, None]
    if COMPACT:
        s = tl.where(S > 1, t, 0)
        total = tl.load(count + s)
        units = kept + s * H
        for first in range(0, total, K):
            k, inside = in_rows(first, K, SPLIT), in_rows(first, K, SPLIT) < total
            x = tl.load(
                rows + tl.load(units + k, mask=inside, other=0), mask=alive & inside, other=0
            )
            k, inside = in_columns(first, K, SPLIT), in_columns(first, K, SPLIT) < total
            of_unit = tl.load(units + k, mask=inside, other=0) * columns
            w = tl.load(mine + of_unit, mask=inside, other=0)
            acc = tl.dot(x, w, acc, input_precision=PRECISION)
    else:
        for first in range(0, H, K):
            k = in_rows(first, K, SPLIT)
            x = tl.load(rows + k, mask=alive & (k < H), other=0)
            k = in_columns(first, K, SPLIT)
            w = tl.load(mine + k * columns, mask=k < H, other=0)
            acc = tl.dot(x, w, acc, input_precision=PRECISION)
    return tl.sum(acc, 0)


@triton.jit
def by_gate(acc, BT: tl.constexpr, U: tl.constexpr):
    """Return a product's four gates, ``[BT, U]`` each."""
    even, odd = tl.split(tl.reshape(acc, [BT, U, 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def bp_product(
    d_gates, stride, weight, row, n, b, part, N,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradient of what entered a step's product, ``[BT, U]``.

    Args:
        d_gates: ``[R, stride]``, of which N = GH are gradients.
        weight: ``[programs, N, U]``.
    """
    acc = tl.zeros([SPLIT, BT, U], dtype=tl.float32)
    rows = d_gates + (row + b)[None, :, None] * stride
    mine = weight + part.to(tl.int64) * N * U + tl.arange(0, U)[None, None, :]
    alive = (b < n)[None, :, None]
    for first in range(0, N, K):
        k = in_rows(first, K, SPLIT)
        x = tl.load(rows + k, mask=alive & (k < N), other=0)
        k = in_columns(first, K, SPLIT)
        w = tl.load(mine + k * U, mask=k < N, other=0)
        acc = tl.dot(x, w, acc, input_precision=PRECISION)
    return tl.sum(acc, 0)


@triton.jit
def let_in(
    h, masked, stride, dropped, sizes, offsets, t, b, u, present, B, H, S, samples, scale,
    DROPS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Write what step t takes of h ``[BT, U]``, masked and scaled."""
    n, row = rows_of(sizes, offsets, t, B, PACKED)
    alive = (b < n)[:, None] & present
    x = masked_at(h, dropped, t, b, u, alive, H, S, samples, scale, DROPS)
    at = (row + b)[:, None] * stride + u[None, :]
    tl.store(masked + at, x.to(masked.dtype.element_ty), mask=alive)
