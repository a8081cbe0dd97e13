"""The cpu engine: native kernels for float32 (and float64, correct but not tuned).

The same functions as :mod:`opennmt_sd.ops.portable`. Everything works on rows: time steps one after
the other, ``[R, D]`` with R = sum(sizes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.dropout import Keep, KeepMask, KeepSets
from opennmt_sd.ops.attention import PreparedMemory
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.library import register
from opennmt_sd.ops.stash import Stash

SETS = "Tensor? idx, Tensor? count, float scale"

Grads = tuple["Tensor | None", ...]


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) is not supported by the cpu engine: run the "
            "forward pass under opennmt_sd.ops.use('naive'), which supports it"
        )


def _flops(shape: Sequence[int], count: Tensor | None, sizes: Sequence[int]) -> int:
    """Of one product with a weight of this shape, ``[N, D]``."""
    N, D = shape
    counts = [D] if count is None else count.tolist()
    counts = counts * len(sizes) if len(counts) == 1 else counts
    return sum(2 * n * k * N for n, k in zip(sizes, counts))


# ---------------------------------------------------------------- time-batched masked linear


def _linear_setup(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG001
    x, weight, _, idx, count, ctx.scale, ctx.sizes = inputs
    ctx.save_for_backward(x, weight, idx, count)


def _linear_backward(ctx: Any, dy: Tensor) -> Grads:
    _refuse_double_backward()
    x, weight, idx, count = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    sets = idx, count, ctx.scale, ctx.sizes
    dx = linear_bp(dy, weight, *sets) if need_x else None
    dw = linear_wg(x, dy, *sets) if need_weight else None
    return dx, dw, dy.sum(0) if need_bias else None, None, None, None, None


linear_bp = register(
    f"linear_bp(Tensor dy, Tensor weight, {SETS}, int[] sizes) -> Tensor",
    kernels.linear_bp,
    lambda dy, weight, *_: dy.new_empty(dy.shape[0], weight.shape[1]),
    lambda dy, weight, idx, count, scale, sizes: _flops(weight.shape, count, sizes),  # noqa: ARG005
)
linear_wg = register(
    f"linear_wg(Tensor x, Tensor dy, {SETS}, int[] sizes) -> Tensor",
    kernels.linear_wg,
    lambda x, dy, *_: dy.new_empty(dy.shape[1], x.shape[1]),
    lambda x, dy, idx, count, scale, sizes: _flops((dy.shape[1], x.shape[1]), count, sizes),  # noqa: ARG005
)
linear_fp = register(
    f"linear_fp(Tensor x, Tensor weight, Tensor? bias, {SETS}, int[] sizes) -> Tensor",
    kernels.linear_fp,
    lambda x, weight, *_: x.new_empty(x.shape[0], weight.shape[0]),
    lambda x, weight, bias, idx, count, scale, sizes: _flops(weight.shape, count, sizes),  # noqa: ARG005
    setup=_linear_setup,
    backward=_linear_backward,
)


def masked_linear(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, batch_sizes: Tensor | None
) -> Tensor:
    rows, sets = _input(x, keep, batch_sizes)
    y = linear_fp(rows, weight, bias, *sets[:3], _sizes(x, batch_sizes))  # [R, N]
    return y.view(*x.shape[:-1], weight.shape[0])


def _input(x: Tensor, keep: Keep | None, batch_sizes: Tensor | None) -> tuple[Tensor, kernels.Sets]:
    """Rows ``[R, D]`` and the sets to leave units out by. A mask of each sample's own is applied
    here: it has nothing that a smaller product would serve."""
    if isinstance(keep, KeepMask):
        x, keep = keep.apply(x, batch_sizes), None
    return x.flatten(0, -2), _kept(keep)


def _sizes(x: Tensor, batch_sizes: Tensor | None) -> list[int]:
    return [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()


# ---------------------------------------------------------------- the LSTM recurrence


def _recurrence(
    gates_x: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    idx: Tensor | None,
    count: Tensor | None,
    mask: Tensor | None,
    scale: float,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All h, the final h and c, and what backward needs: the activated gates and all c."""
    hidden, gates, cells = kernels.lstm_fp(
        gates_x, weight, h0, c0, idx, count, mask, scale, sizes, reverse
    )
    h_n, c_n = (_last(rows, first, sizes, reverse) for rows, first in ((hidden, h0), (cells, c0)))
    return hidden, h_n, c_n, gates, cells


def _last(rows: Tensor, first: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """The state of each sequence after its last step in the order of computation."""
    B = first.shape[0]
    if not rows.shape[0]:
        return first.clone(memory_format=torch.contiguous_format)
    if reverse:
        return rows[:B].clone()
    if sizes[-1] == B:
        return rows[-B:].clone()
    ends: list[int] = []  # the last row of each sequence, the longest sequence first
    begin = len(rows)
    for n in reversed(sizes):
        begin -= n
        ends += range(begin + len(ends), begin + n)
    return rows[torch.tensor(ends)]


def _recurrence_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _, weight, h0, c0, idx, count, mask, ctx.scale, ctx.sizes, ctx.reverse = inputs
    hidden, _, _, gates, cells = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, h0, c0, idx, count, mask, hidden, gates, cells)


def _recurrence_backward(
    ctx: Any, d_hidden: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, *_: Any
) -> Grads:
    _refuse_double_backward()
    weight, h0, c0, idx, count, mask, hidden, gates, cells = ctx.saved_tensors
    given = (d_hidden, hidden), (d_h, h0), (d_c, c0)
    grads = [torch.zeros_like(x) if d is None else d for d, x in given]
    sets = idx, count, mask, ctx.scale, ctx.sizes, ctx.reverse
    d_gates, dh, dc = recurrence_bp(*grads, weight, c0, gates, cells, *sets)
    dw = recurrence_wg(hidden, h0, d_gates, *sets) if ctx.needs_input_grad[1] else None
    return d_gates, dw, dh, dc, *[None] * 6


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


MORE_SETS = "Tensor? idx, Tensor? count, Tensor? mask, float scale, int[] sizes, bool reverse"

recurrence_bp = register(
    f"recurrence_bp(Tensor d_hidden, Tensor dh, Tensor dc, Tensor weight, Tensor c0, Tensor gates, "
    f"Tensor cells, {MORE_SETS}) -> (Tensor, Tensor, Tensor)",
    kernels.lstm_bp,
    lambda d_hidden, dh, dc, weight, c0, gates, *_: (_like(gates), _like(dh), _like(dc)),  # noqa: ARG005
    lambda d_hidden, dh, dc, weight, c0, gates, cells, idx, count, mask, scale, sizes, reverse: (  # noqa: ARG005
        _flops(weight.shape, count, sizes)
    ),
)
recurrence_wg = register(
    f"recurrence_wg(Tensor hidden, Tensor h0, Tensor d_gates, {MORE_SETS}) -> Tensor",
    kernels.lstm_wg,
    lambda hidden, h0, d_gates, *_: d_gates.new_empty(d_gates.shape[1], hidden.shape[1]),  # noqa: ARG005
    lambda hidden, h0, d_gates, idx, count, mask, scale, sizes, reverse: (  # noqa: ARG005
        _flops((d_gates.shape[1], hidden.shape[1]), count, sizes)
    ),
)
recurrence_fp = register(
    f"recurrence_fp(Tensor gates_x, Tensor weight, Tensor h0, Tensor c0, {MORE_SETS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _recurrence,
    lambda gates_x, weight, h0, c0, *_: (  # noqa: ARG005
        gates_x.new_empty(gates_x.shape[0], h0.shape[1]),
        _like(h0),
        _like(c0),
        _like(gates_x),
        gates_x.new_empty(gates_x.shape[0], h0.shape[1]),
    ),
    lambda gates_x, weight, h0, c0, idx, count, mask, scale, sizes, reverse: (  # noqa: ARG005
        _flops(weight.shape, count, sizes)
    ),
    setup=_recurrence_setup,
    backward=_recurrence_backward,
)


def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    sets = _kept(keep)
    hidden, h_n, c_n, *_ = recurrence_fp(
        gates_x.flatten(0, -2), weight_hh, h, c, sets.idx, sets.counts, sets.mask, sets.scale,
        _sizes(gates_x, batch_sizes), reverse,
    )  # fmt: skip
    return hidden.view(*gates_x.shape[:-1], hidden.shape[-1]), h_n, c_n


def _kept(keep: Keep | None) -> kernels.Sets:
    if keep is None:
        return kernels.Sets()
    keep = keep.to("cpu")
    if isinstance(keep, KeepSets):
        return kernels.Sets(keep.idx, keep.count, keep.scale)
    return kernels.Sets(scale=keep.scale, mask=keep.mask())


# ---------------------------------------------------------------- a layer: both at once

LAYER_SETS = (
    "Tensor? x_idx, Tensor? x_count, float x_scale, Tensor? h_idx, Tensor? h_count, "
    "float h_scale, Tensor? h_mask, int[] sizes, bool reverse"
)


def _layer(
    x: Tensor, weight_ih: Tensor, bias: Tensor | None, weight_hh: Tensor, h0: Tensor, c0: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    x_sets, h_sets, sizes, reverse = _unflattened(rest)
    hidden, gates, cells = kernels.layer_fp(
        x, weight_ih, bias, weight_hh, h0, c0, x_sets, h_sets, sizes, reverse
    )
    h_n, c_n = (_last(rows, first, sizes, reverse) for rows, first in ((hidden, h0), (cells, c0)))
    return hidden, h_n, c_n, gates, cells


def _unflattened(
    rest: tuple[Any, ...],
) -> tuple[kernels.Sets, kernels.Sets, list[int], bool]:
    """LAYER_SETS as the kernels take them."""
    return kernels.Sets(*rest[:3]), kernels.Sets(*rest[3:7]), rest[7], rest[8]


def _layer_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight_ih, _, weight_hh, h0, c0, *rest = inputs
    hidden, _, _, gates, cells = output
    ctx.set_materialize_grads(False)
    ctx.scales, ctx.sizes, ctx.reverse = (rest[2], rest[5]), rest[7], rest[8]
    ctx.save_for_backward(
        x, weight_ih, weight_hh, h0, c0, hidden, gates, cells, rest[0], rest[1], *rest[3:5], rest[6]
    )


def _layer_backward(
    ctx: Any, d_hidden: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, *_: Any
) -> Grads:
    _refuse_double_backward()
    x, weight_ih, weight_hh, h0, c0, hidden, gates, cells, *sets = ctx.saved_tensors
    x_idx, x_count, h_idx, h_count, h_mask = sets
    given = (d_hidden, hidden), (d_h, h0), (d_c, c0)
    grads = [torch.zeros_like(y) if d is None else d for d, y in given]
    needs = list(ctx.needs_input_grad[:4])
    dx, dw_ih, db, dw_hh, dh, dc = layer_bp(
        *grads, x, weight_ih, weight_hh, h0, c0, hidden, gates, cells, x_idx, x_count,
        ctx.scales[0], h_idx, h_count, ctx.scales[1], h_mask, ctx.sizes, ctx.reverse, needs,
    )  # fmt: skip
    wanted = [d if need else None for d, need in zip((dx, dw_ih, db, dw_hh), needs)]
    return *wanted, dh, dc, *[None] * 9


def _layer_bp(*args: Any) -> tuple[Tensor, ...]:
    x_sets, h_sets, sizes, reverse = _unflattened(args[11:-1])
    call: Any = kernels.layer_bp  # its eleven tensors are not named again here
    return call(*args[:11], x_sets, h_sets, sizes, reverse, args[-1])


def _layer_bp_fake(*args: Any) -> tuple[Tensor, ...]:
    _, dh, dc, x, weight_ih, weight_hh, *_ = args
    shapes = x.shape, weight_ih.shape, weight_ih.shape[:1], weight_hh.shape
    grads = [x.new_empty(shape if need else (0,)) for shape, need in zip(shapes, args[-1])]
    return *grads, _like(dh), _like(dc)


def _layer_flops(weight_ih: Tensor, weight_hh: Tensor, rest: tuple[Any, ...]) -> tuple[int, int]:
    x_sets, h_sets, sizes, _ = _unflattened(rest)
    return _flops(weight_ih.shape, x_sets.counts, sizes), _flops(
        weight_hh.shape, h_sets.counts, sizes
    )


def _layer_bp_flops(*args: Any) -> int:
    need_x, need_ih, _, need_hh = args[-1]
    of_x, of_h = _layer_flops(args[4], args[5], args[11:-1])
    return of_x * (need_x + need_ih) + of_h * (1 + need_hh)


layer_bp = register(
    "layer_bp(Tensor d_hidden, Tensor dh, Tensor dc, Tensor x, Tensor weight_ih, Tensor weight_hh, "
    f"Tensor h0, Tensor c0, Tensor hidden, Tensor gates, Tensor cells, {LAYER_SETS}, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _layer_bp,
    _layer_bp_fake,
    _layer_bp_flops,
)
layer_fp = register(
    "layer_fp(Tensor x, Tensor weight_ih, Tensor? bias, Tensor weight_hh, Tensor h0, Tensor c0, "
    f"{LAYER_SETS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _layer,
    lambda x, weight_ih, bias, weight_hh, h0, c0, *_: (  # noqa: ARG005
        x.new_empty(x.shape[0], h0.shape[1]),
        _like(h0),
        _like(c0),
        x.new_empty(x.shape[0], 4 * h0.shape[1]),
        x.new_empty(x.shape[0], h0.shape[1]),
    ),
    lambda x, weight_ih, bias, weight_hh, h0, c0, *rest: (  # noqa: ARG005
        sum(_layer_flops(weight_ih, weight_hh, rest))
    ),
    setup=_layer_setup,
    backward=_layer_backward,
)


def lstm_layer(
    x: Tensor,
    keep: Keep | None,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    state_keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, sets = _input(x, keep, batch_sizes)
    hidden, h_n, c_n, *_ = layer_fp(
        rows, weight_ih, bias, weight_hh, h, c, *sets[:3], *_kept(state_keep),
        _sizes(x, batch_sizes), reverse,
    )  # fmt: skip
    return hidden.view(*x.shape[:-1], hidden.shape[-1]), h_n, c_n


# ---------------------------------------------------------------- the gates of one step


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c_new, active = kernels.gates_fp(gates, c)
        ctx.save_for_backward(active, c, c_new)
        return h, c_new

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> Any:
        _refuse_double_backward()
        active, c, c_new = ctx.saved_tensors
        return kernels.gates_bp(dh, dc, active, c, c_new)


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    wider = torch.promote_types(gates.dtype, c.dtype)
    return _Gates.apply(gates.to(wider), c.to(wider))


# ---------------------------------------------------------------- stepwise, deferred WG

step_fp = register(
    f"step_fp(Tensor x, Tensor packed, int N, Tensor? bias, {SETS}) -> Tensor",
    kernels.step_fp,
    lambda x, packed, N, *_: x.new_empty(x.shape[0], N),  # noqa: ARG005
    lambda x, packed, N, bias, idx, count, scale: _flops((N, x.shape[1]), count, [len(x)]),  # noqa: ARG005
)
step_bp = register(
    f"step_bp(Tensor dy, Tensor packed, int D, {SETS}) -> Tensor",
    kernels.step_bp,
    lambda dy, packed, D, *_: dy.new_empty(dy.shape[0], D),  # noqa: ARG005
    lambda dy, packed, D, idx, count, scale: _flops((dy.shape[1], D), count, [len(dy)]),  # noqa: ARG005
)
steps_wg = register(
    f"steps_wg(Tensor[] xs, Tensor[] dys, {SETS}) -> Tensor",
    kernels.steps_wg,
    lambda xs, dys, *_: xs[0].new_empty(dys[0].shape[1], xs[0].shape[1]),
    lambda xs, dys, idx, count, scale: _flops(  # noqa: ARG005
        (dys[0].shape[1], xs[0].shape[1]), count, [len(x) for x in xs]
    ),
)


_Step = tuple[Tensor, Tensor, "Keep | None", int]  # x, dy, keep, t


class _Steps:
    """What the steps of one prepared weight leave behind for its one gradient."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = kernels.prepare(weight)
        self.N, self.D = weight.shape
        self.count = 0  # of the steps that ran forward
        self.ran = Stash[_Step]()

    def weight_grad(self) -> tuple[Tensor, Tensor]:
        """WG and the bias gradient over all steps that ran backward in this pass."""
        groups: dict[float | None, list[_Step]] = {}
        for _, given in self.ran.take():
            keep = given[2]
            groups.setdefault(keep.scale if isinstance(keep, KeepSets) else None, []).append(given)
        parts = [_weight_grad(steps, scale) for scale, steps in groups.items()]  # mostly one
        dw = parts[0]
        for part in parts[1:]:
            dw += part
        dys = [dy for steps in groups.values() for _, dy, _, _ in steps]
        return dw, torch.stack([dy.sum(0) for dy in dys]).sum(0)


def _weight_grad(steps: list[_Step], scale: float | None) -> Tensor:
    """WG over steps that share one scale; None: over steps without keep sets."""
    dys = [dy for _, dy, _, _ in steps]
    if scale is None:
        xs = [_masked(x, keep, t) for x, _, keep, t in steps]
        return steps_wg(xs, dys, None, None, 1.0)
    sets = [_one(keep, t) for _, _, keep, t in steps if isinstance(keep, KeepSets)]
    idx, count = (torch.cat(parts) for parts in zip(*sets))
    return steps_wg([x for x, _, _, _ in steps], dys, idx, count, scale)


def _one(keep: KeepSets, t: int) -> tuple[Tensor, Tensor]:
    """idx ``[1, D]`` and count ``[1]`` of step t."""
    s = 0 if keep.steps == 1 else t
    return keep.idx[s : s + 1], keep.count[s : s + 1]


def _masked(x: Tensor, keep: Keep | None, t: int) -> Tensor:
    return x if keep is None else keep[t].apply(x, torch.tensor([len(x)]))


class _DeferredWeightGrad(Function):
    """A token that every step takes, so that this backward runs once theirs have."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, steps: _Steps) -> Tensor:  # noqa: ARG004 - bias is there for its gradient
        ctx.steps = steps
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        _refuse_double_backward()
        dw, db = ctx.steps.weight_grad()
        return dw, db if ctx.needs_input_grad[1] else None, None


class _MaskedLinearStep(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, steps: _Steps,  # noqa: ARG004 - token orders backward
        bias: Tensor | None, keep: Keep | None, t: int,
    ) -> Tensor:  # fmt: skip
        ctx.steps, ctx.keep, ctx.t = steps, keep, t
        if ctx.needs_input_grad[1]:
            ctx.step = steps.count
            steps.count += 1
            ctx.save_for_backward(x)
        if isinstance(keep, KeepSets):
            return step_fp(x, steps.packed, steps.N, bias, *_one(keep, t), keep.scale)
        return step_fp(_masked(x, keep, t), steps.packed, steps.N, bias, None, None, 1.0)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        _refuse_double_backward()
        steps, keep, t = ctx.steps, ctx.keep, ctx.t
        dx = token = None
        if ctx.needs_input_grad[1]:
            (x,) = ctx.saved_tensors
            steps.ran.put(ctx.step, (x.detach(), dy, keep, t))  # x with its graph is a cycle
            token = dy.new_zeros(())
        if ctx.needs_input_grad[0]:
            if isinstance(keep, KeepSets):
                dx = step_bp(dy, steps.packed, steps.D, *_one(keep, t), keep.scale)
            else:
                dx = _masked(step_bp(dy, steps.packed, steps.D, None, None, 1.0), keep, t)
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


# ---------------------------------------------------------------- stepwise attention


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> PreparedMemory:
    # Else each step would make a copy of its own.
    return PreparedMemory(memory.contiguous(), lengths, kernels.attend_fp, kernels.attend_bp)


# ---------------------------------------------------------------- projection and likelihood


class _ProjectedNLL(Function):
    """The logits become their own gradient; what comes in for the loss, a number, is multiplied in
    by the products that need it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor,
        sets: kernels.Sets, sizes: list[int], smoothing: float, factor: float, recorded: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        logits = kernels.linear_fp(x, weight, bias, *sets[:3], sizes)  # [R, V]
        wants_grad = recorded and any(ctx.needs_input_grad)  # which ignores torch.no_grad
        losses, hits = kernels.nll_(logits, targets, smoothing, 1.0 if wants_grad else 0.0)
        if wants_grad:
            ctx.save_for_backward(x, weight, logits)
        ctx.sets, ctx.sizes, ctx.factor = sets, sizes, factor
        correct = hits.sum()
        ctx.mark_non_differentiable(correct)
        return losses.sum() * factor, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        _refuse_double_backward()
        x, weight, d_logits = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        factor = float(grad) * ctx.factor
        sets = ctx.sets.idx, ctx.sets.counts, ctx.sets.scale * factor, ctx.sizes
        dx = kernels.linear_bp(d_logits, weight, *sets) if need_x else None
        dw = kernels.linear_wg(x, d_logits, *sets) if need_weight else None
        db = d_logits.sum(0).mul_(factor) if need_bias else None
        return dx, dw, db, *[None] * 6


def projected_nll(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    batch_sizes: Tensor | None,
    label_smoothing: float,
    factor: float,
) -> tuple[Tensor, Tensor]:
    rows, sets = _input(x, keep, batch_sizes)
    return _ProjectedNLL.apply(
        rows, weight, bias, targets.flatten(), sets, _sizes(x, batch_sizes), label_smoothing,
        factor, torch.is_grad_enabled(),
    )  # fmt: skip
