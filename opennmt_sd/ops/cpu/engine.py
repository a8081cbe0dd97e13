"""The cpu engine: native kernels for float32 (and float64, correct but not tuned).

The same functions as :mod:`opennmt_sd.ops.portable`. Everything works on rows: time steps one after
the other, ``[R, D]`` with R = sum(sizes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.dropout import Keep, KeepMask, KeepSets
from opennmt_sd.ops import portable
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.kernels import DTYPES as DTYPES
from opennmt_sd.ops.cpu.library import register

# ---------------------------------------------------------------- time-batched masked linear


def _linear_fp_fake(x, weight, bias, idx, count, scale, sizes):
    return x.new_empty(x.shape[0], weight.shape[0])


def _linear_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, idx, count, ctx.scale, ctx.sizes = inputs
    ctx.save_for_backward(x, weight, idx, count)


def _linear_backward(ctx: Any, dy: Tensor) -> tuple[Optional[Tensor], ...]:
    _refuse_double_backward()
    x, weight, idx, count = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    sets = idx, count, ctx.scale, ctx.sizes
    dx = linear_bp(dy, weight, *sets) if need_x else None
    dw = linear_wg(x, dy, *sets) if need_weight else None
    return dx, dw, dy.sum(0) if need_bias else None, None, None, None, None


linear_bp = register(
    kernels.linear_bp,
    lambda dy, weight, *_: dy.new_empty(dy.shape[0], weight.shape[1]),
)
linear_wg = register(
    kernels.linear_wg,
    lambda x, dy, *_: dy.new_empty(dy.shape[1], x.shape[1]),
)
linear_fp = register(kernels.linear_fp, _linear_fp_fake, _linear_setup, _linear_backward)


def masked_linear(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, batch_sizes: Tensor | None
) -> Tensor:
    if keep is None:
        return F.linear(x, weight, bias)
    if not isinstance(keep, KeepSets):  # nothing that a smaller product would serve
        return portable.masked_linear(x, keep, weight, bias, batch_sizes)
    keep = keep.to("cpu")
    y = linear_fp(
        x.flatten(0, -2), weight, bias, keep.idx, keep.count, keep.scale, _sizes(x, batch_sizes)
    )  # [R, N]
    return y.view(*x.shape[:-1], weight.shape[0])


def _sizes(x: Tensor, batch_sizes: Tensor | None) -> list[int]:
    return [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) is not supported by the cpu engine: run the "
            "forward pass under opennmt_sd.ops.use('naive'), which supports it"
        )


# ---------------------------------------------------------------- the LSTM recurrence


def recurrence(
    gates_x: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    idx: Optional[Tensor],
    count: Optional[Tensor],
    mask: Optional[Tensor],
    scale: float,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden, gates, cells = kernels.lstm_fp(
        gates_x, weight, h0, c0, idx, count, mask, scale, sizes, reverse
    )
    h_n, c_n = (_last(rows, first, sizes, reverse) for rows, first in ((hidden, h0), (cells, c0)))
    return hidden, h_n, c_n, gates, cells


def _last(rows: Tensor, first: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """The state of each sequence after its last step in the order of computation."""
    B = first.shape[0]
    if not rows.shape[0]:
        return first.clone()
    if reverse:
        return rows[:B].clone()
    if sizes[-1] == B:
        return rows[-B:].clone()
    ends: list[int] = []  # of the sequences, the longest first
    end = len(rows)
    for t in reversed(range(len(sizes))):
        end -= sizes[t]
        ends += range(end + len(ends), end + sizes[t])
    return rows[torch.tensor(ends)]


def _recurrence_fake(gates_x, weight, h0, c0, idx, count, mask, scale, sizes, reverse):
    R, H = gates_x.shape[0], h0.shape[1]
    return (
        gates_x.new_empty(R, H),
        torch.empty_like(h0, memory_format=torch.contiguous_format),
        torch.empty_like(c0, memory_format=torch.contiguous_format),
        gates_x.new_empty(R, 4 * H),
        gates_x.new_empty(R, H),
    )


def _recurrence_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _, weight, h0, c0, idx, count, mask, ctx.scale, ctx.sizes, ctx.reverse = inputs
    hidden, _, _, gates, cells = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, h0, c0, idx, count, mask, hidden, gates, cells)


def _recurrence_backward(ctx: Any, d_hidden, d_h, d_c, *_: Any) -> tuple[Optional[Tensor], ...]:
    _refuse_double_backward()
    weight, h0, c0, idx, count, mask, hidden, gates, cells = ctx.saved_tensors
    d_hidden, d_h, d_c = (
        torch.zeros_like(x) if d is None else d
        for d, x in ((d_hidden, hidden), (d_h, h0), (d_c, c0))
    )
    d_gates, dh, dc = recurrence_bp(
        d_hidden, d_h, d_c, weight, c0, gates, cells, idx, count, mask, ctx.scale, ctx.sizes,
        ctx.reverse,
    )  # fmt: skip
    dw = None
    if ctx.needs_input_grad[1]:
        dw = recurrence_wg(
            hidden, h0, d_gates, idx, count, mask, ctx.scale, ctx.sizes, ctx.reverse
        )
    return d_gates, dw, dh, dc, *[None] * 6


def _wg(
    hidden: Tensor,
    h0: Tensor,
    d_gates: Tensor,
    idx: Optional[Tensor],
    count: Optional[Tensor],
    mask: Optional[Tensor],
    scale: float,
    sizes: Sequence[int],
    reverse: bool,
) -> Tensor:
    if idx is not None:
        return kernels.lstm_wg(hidden, h0, d_gates, idx, count, scale, sizes, reverse)
    keep = None if mask is None else KeepMask(mask, scale)
    before = portable._before(hidden, h0, list(sizes), reverse)
    return portable.wg(before, d_gates, keep, list(sizes))


recurrence_bp = register(
    kernels.lstm_bp,
    lambda d_hidden, dh, dc, weight, c0, gates, cells, *_: (
        torch.empty_like(gates),
        torch.empty_like(dh, memory_format=torch.contiguous_format),
        torch.empty_like(dc, memory_format=torch.contiguous_format),
    ),
)
recurrence_wg = register(
    _wg, lambda hidden, h0, d_gates, *_: d_gates.new_empty(d_gates.shape[1], hidden.shape[1])
)
_recurrence = register(recurrence, _recurrence_fake, _recurrence_setup, _recurrence_backward)


def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    idx = count = mask = None
    scale = 1.0
    if keep is not None:
        keep = keep.to("cpu")
        scale = keep.scale
        if isinstance(keep, KeepSets):
            idx, count = keep.idx, keep.count
        elif isinstance(keep, KeepMask):
            mask = keep.dense
    hidden, h_n, c_n, *_ = _recurrence(
        gates_x.flatten(0, -2), weight_hh, h, c, idx, count, mask, scale,
        _sizes(gates_x, batch_sizes), reverse,
    )  # fmt: skip
    return hidden.view(*gates_x.shape[:-1], hidden.shape[-1]), h_n, c_n


# ---------------------------------------------------------------- stepwise

lstm_gates = portable.lstm_gates
prepare = portable.prepare
masked_linear_step = portable.masked_linear_step
