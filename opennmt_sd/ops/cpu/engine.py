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
from torch.autograd import Function

from opennmt_sd.dropout import Keep, KeepMask, KeepSets
from opennmt_sd.ops import portable
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.kernels import DTYPES as DTYPES
from opennmt_sd.ops.cpu.library import register

# ---------------------------------------------------------------- time-batched masked linear


def _linear_fp_fake(x, weight, *_):
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


def dense_linear(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    mask: Tensor,
    scale: float,
    sizes: Sequence[int],
) -> Tensor:
    """A mask of each sample's own: there is nothing that a smaller product would serve."""
    return portable.fp(x, KeepMask(mask, scale), weight, bias, list(sizes))


def _dense_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, mask, ctx.scale, ctx.sizes = inputs
    ctx.save_for_backward(x, weight, mask)


def _dense_backward(ctx: Any, dy: Tensor) -> tuple[Optional[Tensor], ...]:
    _refuse_double_backward()
    x, weight, mask = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    keep, sizes = KeepMask(mask, ctx.scale), list(ctx.sizes)
    dx = portable.bp(dy, keep, weight, sizes) if need_x else None
    dw = portable.wg(x, dy, keep, sizes) if need_weight else None
    return dx, dw, dy.sum(0) if need_bias else None, None, None, None


dense_fp = register(dense_linear, _linear_fp_fake, _dense_setup, _dense_backward)


def masked_linear(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, batch_sizes: Tensor | None
) -> Tensor:
    if keep is None:
        return F.linear(x, weight, bias)
    keep, rows, sizes = keep.to("cpu"), x.flatten(0, -2), _sizes(x, batch_sizes)
    if isinstance(keep, KeepSets):
        y = linear_fp(rows, weight, bias, keep.idx, keep.count, keep.scale, sizes)  # [R, N]
    else:
        y = dense_fp(rows, weight, bias, keep.mask(), keep.scale, sizes)
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


# ---------------------------------------------------------------- the gates of one step


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates, c):
        h, c_new, active = kernels.gates_fp(gates, c)
        ctx.save_for_backward(active, c, c_new)
        return h, c_new

    @staticmethod
    def backward(ctx: Any, dh, dc):
        _refuse_double_backward()
        active, c, c_new = ctx.saved_tensors
        return kernels.gates_bp(dh, dc, active, c, c_new)


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return _Gates.apply(gates, c)


# ---------------------------------------------------------------- stepwise, deferred weight gradient


class _Steps:
    """What the steps of one prepared weight leave behind for its one gradient."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = kernels.prepare(weight)
        self.N, self.D = weight.shape
        self.count = 0  # of the steps that ran forward
        self.ran: dict[int, tuple[Tensor, Tensor, Keep | None, int]] = {}  # x, dy, keep, t
        self.task = -1

    def stash(self, step: int, *given: Any) -> None:
        # A backward pass that never asks for the weight leaves its gradients here; the next one
        # must not count them.
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self.ran.clear()
            self.task = task
        self.ran[step] = given

    def weight_grad(self) -> tuple[Tensor, Tensor]:
        """WG and the bias gradient over all steps that ran backward in this pass."""
        ran = [given for _, given in sorted(self.ran.items())]
        self.ran.clear()
        dw = self.packed.new_zeros(()).expand(self.N, self.D)
        for scale in sorted({keep.scale for _, _, keep, _ in ran if isinstance(keep, KeepSets)}):
            steps = [g for g in ran if isinstance(g[2], KeepSets) and g[2].scale == scale]
            xs, dys = [g[0] for g in steps], [g[1] for g in steps]
            idx, count = (torch.cat(parts) for parts in zip(*(_one(g[2], g[3]) for g in steps)))
            dw = _sum(dw, kernels.steps_wg(xs, dys, idx, count, scale))
        dense = [(_masked(x, keep, t), dy) for x, dy, keep, t in ran
                 if not isinstance(keep, KeepSets)]  # fmt: skip
        if dense:
            xs, dys = (torch.cat(parts) for parts in zip(*dense))
            dw = _sum(dw, dys.t() @ xs)
        db = torch.stack([dy.sum(0) for _, dy, _, _ in ran]).sum(0)
        return dw, db


def _sum(a: Tensor, b: Tensor) -> Tensor:
    return b if a.stride() == (0, 0) else b.add_(a)  # the first one is an expanded zero


def _one(keep: KeepSets, t: int) -> tuple[Tensor, Tensor]:
    """idx ``[1, D]`` and count ``[1]`` of step t."""
    s = 0 if keep.steps == 1 else t
    return keep.idx[s : s + 1], keep.count[s : s + 1]


def _masked(x: Tensor, keep: Keep | None, t: int) -> Tensor:
    return x if keep is None else keep[t].apply(x, torch.tensor([len(x)]))


class _DeferredWeightGrad(Function):
    """A token that every step takes, so that this backward runs once theirs have."""

    @staticmethod
    def forward(ctx: Any, weight, bias, steps):
        ctx.steps = steps
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _):
        _refuse_double_backward()
        dw, db = ctx.steps.weight_grad()
        return dw, db if ctx.needs_input_grad[1] else None, None


class _MaskedLinearStep(Function):
    @staticmethod
    def forward(ctx: Any, x, token, steps, bias, keep, t):
        ctx.steps, ctx.keep, ctx.t = steps, keep, t
        if ctx.needs_input_grad[1]:
            ctx.step = steps.count
            steps.count += 1
            ctx.save_for_backward(x)
        if isinstance(keep, KeepSets):
            sets = *_one(keep, t), keep.scale
        else:
            x, sets = _masked(x, keep, t), (None, None, 1.0)
        return kernels.step_fp(x, steps.packed, bias, steps.N, *sets)

    @staticmethod
    def backward(ctx: Any, dy):
        _refuse_double_backward()
        steps, keep, t = ctx.steps, ctx.keep, ctx.t
        dx = token = None
        if ctx.needs_input_grad[1]:
            steps.stash(ctx.step, *ctx.saved_tensors, dy, keep, t)
            token = dy.new_zeros(())
        if ctx.needs_input_grad[0]:
            if isinstance(keep, KeepSets):
                dx = kernels.step_bp(dy, steps.packed, steps.D, *_one(keep, t), keep.scale)
            else:
                dx = kernels.step_bp(dy, steps.packed, steps.D, None, None, 1.0)
                dx = _masked(dx, keep, t)
        return dx, token, None, None, None, None


class Prepared:
    """A packed weight for one forward and backward pass, used step by step."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.steps = _Steps(weight.detach())
        self.bias = None if bias is None else bias.detach()
        self.token = _DeferredWeightGrad.apply(weight, bias, self.steps)


def prepare(weight: Tensor, bias: Tensor | None) -> Prepared:
    return Prepared(weight, bias)


def masked_linear_step(handle: Prepared, x: Tensor, keep: Keep | None, t: int) -> Tensor:
    keep = None if keep is None else keep.to("cpu")
    return _MaskedLinearStep.apply(x, handle.token, handle.steps, handle.bias, keep, t)
