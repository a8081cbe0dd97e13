"""The LSTM's recurrence, forward and backward: all steps in one launch, or one launch a step."""

from __future__ import annotations

import triton
import triton.language as tl

from opennmt_sd.ops.triton.tiles import (
    RUNTIME,
    arrive,
    bp_product,
    by_gate,
    fp_product,
    let_in,
    masked_at,
    owned,
    rows_of,
    sigmoid,
    tanh,
    wait,
)


@triton.jit(do_not_specialize=RUNTIME)
def lstm_fp(
    gates_x, weight, bias, masked, hidden, gates, cells, other, h_first, c_first, h_last, c_last,
    dropped, kept, count, sizes, offsets, arrived,
    begin, end, T, B, H, stride, columns, S, samples, scale,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, DROPS: tl.constexpr, COMPACT: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, ONCE: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Do steps begin to end, in the order of time or against it.

    Args:
        gates_x: ``[R, 4H]``.
        weight, kept, count, masked: see :func:`fp_product`; a step writes what the next one takes.
        hidden: ``[R, H]``, of the dtype of the products.
        gates, cells: activated ``[R, 4H]``, and c ``[R, H]``, for backward.
        other: not used here: the GRU's.
        h_first, c_first, h_last, c_last: the state before and after, ``[B, H]`` each.
        dropped: ``[S, 1 or B, H]``.
        arrived: a zero for each part of the batch. ONCE: all steps are done in this launch.
    """
    part, of_batch = tl.program_id(0), tl.program_id(1)
    b, u, state, present = owned(B, H, BT, U)
    h = tl.load(h_first + state, mask=present, other=0).to(tl.float32)
    c = tl.load(c_first + state, mask=present, other=0).to(tl.float32)
    if begin == 0:
        let_in(
            h, masked, stride, dropped, sizes, offsets, T - 1 if REVERSE else begin, b, u, present,
            B, H, S, samples, scale, DROPS, PACKED,
        )  # fmt: skip
        if ONCE:
            arrive(arrived + of_batch)
    for s in range(begin, end):
        t = T - 1 - s if REVERSE else s
        n, row = rows_of(sizes, offsets, t, B, PACKED)
        alive = (b < n)[:, None] & present
        at = (row + b)[:, None] * 4 * H + u[None, :]
        i = tl.load(gates_x + at, mask=alive, other=0).to(tl.float32)
        f = tl.load(gates_x + at + H, mask=alive, other=0).to(tl.float32)
        g = tl.load(gates_x + at + 2 * H, mask=alive, other=0).to(tl.float32)
        o = tl.load(gates_x + at + 3 * H, mask=alive, other=0).to(tl.float32)
        if ONCE:
            wait(arrived + of_batch, (s + 1) * tl.num_programs(0))
        acc = fp_product(
            masked, stride, weight, kept, count, t, row, n, b, part, S, H, columns,
            BT, U, K, SPLIT, PRECISION, COMPACT,
        )  # fmt: skip
        i_h, f_h, g_h, o_h = by_gate(acc, BT, U)
        i, f, g, o = sigmoid(i + i_h), sigmoid(f + f_h), tanh(g + g_h), sigmoid(o + o_h)
        c = tl.where(alive, f * c + i * g, c)
        h = tl.where(alive, o * tanh(c), h)
        if s + 1 < T:
            let_in(
                h, masked, stride, dropped, sizes, offsets, t - 1 if REVERSE else t + 1, b, u,
                present, B, H, S, samples, scale, DROPS, PACKED,
            )  # fmt: skip
            if ONCE:
                arrive(arrived + of_batch)
        tl.store(gates + at, i, mask=alive)
        tl.store(gates + at + H, f, mask=alive)
        tl.store(gates + at + 2 * H, g, mask=alive)
        tl.store(gates + at + 3 * H, o, mask=alive)
        rows = (row + b)[:, None] * H + u[None, :]
        tl.store(cells + rows, c, mask=alive)
        tl.store(hidden + rows, h.to(hidden.dtype.element_ty), mask=alive)
    tl.store(h_last + state, h.to(h_last.dtype.element_ty), mask=present)
    tl.store(c_last + state, c.to(c_last.dtype.element_ty), mask=present)


@triton.jit(do_not_specialize=RUNTIME)
def lstm_bp(
    d_hidden, gates, cells, other, first, weight, d_gates, d_gates_h,
    dh_last, dc_last, dh_first, dc_first,
    dropped, sizes, offsets, arrived,
    begin, end, T, B, H, stride, S, samples, scale,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, DROPS: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr,
    ONCE: tl.constexpr,
):  # fmt: skip
    """Undo steps begin to end of T + 1: each takes the product of the one before, which came later
    in the forward pass, then the gradient of its own gates; the last one the product alone.

    Args:
        d_hidden: ``[R, H]``.
        gates, cells: as forward left them; first: the c that it began with, ``[B, H]``.
        weight, d_gates: see :func:`bp_product`.
        other, d_gates_h: not used here: the GRU's.
        dh_last, dc_last, dh_first, dc_first: gradients of the state, ``[B, H]`` each.
    """
    part, of_batch = tl.program_id(0), tl.program_id(1)
    b, u, state, present = owned(B, H, BT, U)
    dh = tl.load(dh_last + state, mask=present, other=0).to(tl.float32)
    dc = tl.load(dc_last + state, mask=present, other=0).to(tl.float32)
    for s in range(begin, end):
        # The last one has no gates of its own.
        at_s = tl.minimum(s, T - 1)
        t = at_s if REVERSE else T - 1 - at_s
        n, row = rows_of(sizes, offsets, t, B, PACKED)
        alive = (b < n)[:, None] & present & (s < T)
        at = (row + b)[:, None] * 4 * H + u[None, :]
        rows = (row + b)[:, None] * H + u[None, :]
        i = tl.load(gates + at, mask=alive, other=0)
        f = tl.load(gates + at + H, mask=alive, other=0)
        g = tl.load(gates + at + 2 * H, mask=alive, other=0)
        o = tl.load(gates + at + 3 * H, mask=alive, other=0)
        tanh_c = tanh(tl.load(cells + rows, mask=alive, other=0))
        c_before = tl.load(first + state, mask=alive, other=0).to(tl.float32)
        if s + 1 < T:
            before = s + 1 if REVERSE else T - 2 - s
            n_before, row_before = rows_of(sizes, offsets, before, B, PACKED)
            older = alive & (b < n_before)[:, None]
            rows_before = (row_before + b)[:, None] * H + u[None, :]
            c_older = tl.load(cells + rows_before, mask=older, other=0)
            c_before = tl.where(older, c_older, c_before)
        d_y = tl.load(d_hidden + rows, mask=alive, other=0).to(tl.float32)
        if s > 0:
            if ONCE:
                wait(arrived + of_batch, s * tl.num_programs(0))
            after = s - 1 if REVERSE else T - s
            n_after, row_after = rows_of(sizes, offsets, after, B, PACKED)
            came = (b < n_after)[:, None] & present
            acc = bp_product(
                d_gates, stride, weight, row_after, n_after, b, part, 4 * H,
                BT, U, K, SPLIT, PRECISION,
            )  # fmt: skip
            acc = masked_at(acc, dropped, after, b, u, came, H, S, samples, scale, DROPS)
            dh = tl.where(came, acc, dh)
        dh = dh + d_y
        d_c = dc + dh * o * (1 - tanh_c * tanh_c)
        dtype = d_gates.dtype.element_ty
        at = (row + b)[:, None] * stride + u[None, :]
        tl.store(d_gates + at, (d_c * g * i * (1 - i)).to(dtype), mask=alive)
        tl.store(d_gates + at + H, (d_c * c_before * f * (1 - f)).to(dtype), mask=alive)
        tl.store(d_gates + at + 2 * H, (d_c * i * (1 - g * g)).to(dtype), mask=alive)
        tl.store(d_gates + at + 3 * H, (dh * tanh_c * o * (1 - o)).to(dtype), mask=alive)
        dc = tl.where(alive, d_c * f, dc)
        if ONCE and s < T:
            arrive(arrived + of_batch)
    tl.store(dh_first + state, dh.to(dh_first.dtype.element_ty), mask=present)
    tl.store(dc_first + state, dc.to(dc_first.dtype.element_ty), mask=present)
