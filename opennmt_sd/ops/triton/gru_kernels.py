"""The GRU's recurrence, forward and backward: all steps in one launch, or one launch a step."""

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
def gru_fp(
    gates_x, weight, bias, masked, hidden, gates, states, q, h_first, c_first, h_last, c_last,
    dropped, kept, count, sizes, offsets, arrived,
    begin, end, T, B, H, stride, columns, S, samples, scale,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, DROPS: tl.constexpr, COMPACT: tl.constexpr, PACKED: tl.constexpr,
    REVERSE: tl.constexpr, ONCE: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Do steps begin to end, in the order of time or against it: as :func:`lstm_fp`, but

    Args:
        gates_x, gates: ``[R, 3H]``.
        bias: ``[3H]``, of the state's product.
        states: h, ``[R, H]``; q: what the reset gate scales, ``[R, H]``. Both for backward.
        c_first, c_last: not used here.
    """
    part, of_batch = tl.program_id(0), tl.program_id(1)
    b, u, state, present = owned(B, H, BT, U)
    h = tl.load(h_first + state, mask=present, other=0).to(tl.float32)
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
        at = (row + b)[:, None] * 3 * H + u[None, :]
        r = tl.load(gates_x + at, mask=alive, other=0).to(tl.float32)
        z = tl.load(gates_x + at + H, mask=alive, other=0).to(tl.float32)
        n_x = tl.load(gates_x + at + 2 * H, mask=alive, other=0).to(tl.float32)
        if ONCE:
            wait(arrived + of_batch, (s + 1) * tl.num_programs(0))
        acc = fp_product(
            masked, stride, weight, kept, count, t, row, n, b, part, S, H, columns,
            BT, U, K, SPLIT, PRECISION, COMPACT,
        )  # fmt: skip
        r_h, z_h, n_h, _ = by_gate(acc, BT, U)
        if BIAS:
            r_h += tl.load(bias + u, mask=u < H, other=0).to(tl.float32)[None, :]
            z_h += tl.load(bias + H + u, mask=u < H, other=0).to(tl.float32)[None, :]
            n_h += tl.load(bias + 2 * H + u, mask=u < H, other=0).to(tl.float32)[None, :]
        r, z = sigmoid(r + r_h), sigmoid(z + z_h)
        new = tanh(n_x + r * n_h)
        h = tl.where(alive, (1 - z) * new + z * h, h)
        if s + 1 < T:
            let_in(
                h, masked, stride, dropped, sizes, offsets, t - 1 if REVERSE else t + 1, b, u,
                present, B, H, S, samples, scale, DROPS, PACKED,
            )  # fmt: skip
            if ONCE:
                arrive(arrived + of_batch)
        tl.store(gates + at, r, mask=alive)
        tl.store(gates + at + H, z, mask=alive)
        tl.store(gates + at + 2 * H, new, mask=alive)
        rows = (row + b)[:, None] * H + u[None, :]
        tl.store(q + rows, n_h, mask=alive)
        tl.store(states + rows, h, mask=alive)
        tl.store(hidden + rows, h.to(hidden.dtype.element_ty), mask=alive)
    tl.store(h_last + state, h.to(h_last.dtype.element_ty), mask=present)


@triton.jit(do_not_specialize=RUNTIME)
def gru_bp(
    d_hidden, gates, states, q, first, weight, d_gates, d_gates_h,
    dh_last, dc_last, dh_first, dc_first,
    dropped, sizes, offsets, arrived,
    begin, end, T, B, H, stride, S, samples, scale,
    BT: tl.constexpr, U: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr, DROPS: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr,
    ONCE: tl.constexpr,
):  # fmt: skip
    """Undo steps begin to end of T + 1, as :func:`lstm_bp`, but

    Args:
        states, q: as forward left them; first: the h that it began with, ``[B, H]``.
        d_gates, d_gates_h: of what the input's product gave, and of what the state's gave.
        dc_last, dc_first: not used here.
    """
    part, of_batch = tl.program_id(0), tl.program_id(1)
    b, u, state, present = owned(B, H, BT, U)
    dh = tl.load(dh_last + state, mask=present, other=0).to(
        tl.float32
    )  # but for what comes by the product
    for s in range(begin, end):
        # The last one has no gates of its own.
        at_s = tl.minimum(s, T - 1)
        t = at_s if REVERSE else T - 1 - at_s
        n, row = rows_of(sizes, offsets, t, B, PACKED)
        alive = (b < n)[:, None] & present & (s < T)
        at = (row + b)[:, None] * 3 * H + u[None, :]
        rows = (row + b)[:, None] * H + u[None, :]
        r = tl.load(gates + at, mask=alive, other=0)
        z = tl.load(gates + at + H, mask=alive, other=0)
        new = tl.load(gates + at + 2 * H, mask=alive, other=0)
        scaled = tl.load(q + rows, mask=alive, other=0)
        h_before = tl.load(first + state, mask=alive, other=0).to(tl.float32)
        if s + 1 < T:
            before = s + 1 if REVERSE else T - 2 - s
            n_before, row_before = rows_of(sizes, offsets, before, B, PACKED)
            older = alive & (b < n_before)[:, None]
            rows_before = (row_before + b)[:, None] * H + u[None, :]
            h_older = tl.load(states + rows_before, mask=older, other=0)
            h_before = tl.where(older, h_older, h_before)
        d_y = tl.load(d_hidden + rows, mask=alive, other=0).to(tl.float32)
        if s > 0:
            if ONCE:
                wait(arrived + of_batch, s * tl.num_programs(0))
            after = s - 1 if REVERSE else T - s
            n_after, row_after = rows_of(sizes, offsets, after, B, PACKED)
            came = (b < n_after)[:, None] & present
            acc = bp_product(
                d_gates_h, stride, weight, row_after, n_after, b, part, 3 * H,
                BT, U, K, SPLIT, PRECISION,
            )  # fmt: skip
            acc = masked_at(acc, dropped, after, b, u, came, H, S, samples, scale, DROPS)
            dh = tl.where(came, dh + acc, dh)
        dh_t = dh + d_y
        d_new = dh_t * (1 - z) * (1 - new * new)
        d_r = d_new * scaled * r * (1 - r)
        d_z = dh_t * (h_before - new) * z * (1 - z)
        dtype = d_gates.dtype.element_ty
        at = (row + b)[:, None] * stride + u[None, :]
        tl.store(d_gates + at, d_r.to(dtype), mask=alive)
        tl.store(d_gates + at + H, d_z.to(dtype), mask=alive)
        tl.store(d_gates + at + 2 * H, d_new.to(dtype), mask=alive)
        tl.store(d_gates_h + at, d_r.to(dtype), mask=alive)
        tl.store(d_gates_h + at + H, d_z.to(dtype), mask=alive)
        tl.store(d_gates_h + at + 2 * H, (d_new * r).to(dtype), mask=alive)
        dh = tl.where(alive, dh_t * z, dh)
        if ONCE and s < T:
            arrive(arrived + of_batch)
    tl.store(dh_first + state, dh.to(dh_first.dtype.element_ty), mask=present)
