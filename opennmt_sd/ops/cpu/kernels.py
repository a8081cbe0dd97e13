"""The kernels as functions of tensors: every call checks what the native side takes on trust.

Axis names: T time, B batch, R rows (the sum of ``sizes``), D inputs, H hidden, N outputs, S keep
sets. ``sizes`` are the rows of each step. ``idx`` and ``count`` are :class:`KeepSets`' fields, None
where nothing is dropped. All tensors are on the CPU, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from opennmt_sd.ops.cpu.binding import require_native

DTYPES = {torch.float32: "f32", torch.float64: "f64"}


def linear_fp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
    sizes: Sequence[int],
) -> Tensor:
    """y ``[R, N]`` of rows x ``[R, D]``."""
    N, D, at = weight.shape[0], x.shape[1], _Addresses(x.dtype)
    y = _new(x, x.shape[0], N)
    _call(
        "linear_fp", x.dtype, sizes=list(sizes), y=at(y),
        input=_linear(x=at(x, sum(sizes), D), weight=at(weight, N, D), bias=at(bias, N), D=D, N=N,
                      keep=_sets(at, idx, count, scale, len(sizes), D)),
    )  # fmt: skip
    return y


def linear_bp(
    dy: Tensor,
    weight: Tensor,
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
    sizes: Sequence[int],
) -> Tensor:
    """dx ``[R, D]``, zero outside the kept units, of dy ``[R, N]``."""
    N, D, at = dy.shape[1], weight.shape[1], _Addresses(dy.dtype)
    dx = _new(dy, dy.shape[0], D)
    _call(
        "linear_bp", dy.dtype, sizes=list(sizes), dy=at(dy, sum(sizes), N), dx=at(dx),
        input=_linear(weight=at(weight, N, D), D=D, N=N,
                      keep=_sets(at, idx, count, scale, len(sizes), D)),
    )  # fmt: skip
    return dx


def linear_wg(
    x: Tensor,
    dy: Tensor,
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
    sizes: Sequence[int],
) -> Tensor:
    """dw ``[N, D]`` of rows x ``[R, D]`` and dy ``[R, N]``."""
    D, N, R, at = x.shape[1], dy.shape[1], sum(sizes), _Addresses(dy.dtype)
    dw = _new(dy, N, D)
    _call(
        "linear_wg", dy.dtype, sizes=list(sizes), dy=at(dy, R, N), dw=at(dw),
        input=_linear(x=at(x, R, D), D=D, N=N,
                      keep=_sets(at, idx, count, scale, len(sizes), D)),
    )  # fmt: skip
    return dw


def prepare(weight: Tensor) -> Tensor:
    """``weight [N, D]`` packed for :func:`step_fp` and :func:`step_bp`."""
    (N, D), at = weight.shape, _Addresses(weight.dtype)
    packed = weight.new_empty(_packed_size(N, D, weight.dtype))
    _call("prepare", weight.dtype, weight=at(weight), N=N, D=D, packed=at(packed))
    return packed


def _packed_size(N: int, D: int, dtype: torch.dtype) -> int:
    return getattr(require_native(), f"packed_size_{_suffix(dtype)}")(N=N, D=D)


def step_fp(
    x: Tensor,
    packed: Tensor,
    N: int,
    bias: Tensor | None,
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
) -> Tensor:
    """One step of :func:`linear_fp`; idx and count are this step's alone."""
    (B, D), at = x.shape, _Addresses(x.dtype)
    y = x.new_empty(B, N)
    weight = at(packed, _packed_size(N, D, x.dtype))
    _call(
        "linear_fp", x.dtype, sizes=[B], y=at(y),
        input=_linear(x=at(x), weight=weight, packed=True, bias=at(bias, N), D=D, N=N,
                      keep=_sets(at, idx, count, scale, 1, D)),
    )  # fmt: skip
    return y


def step_bp(
    dy: Tensor, packed: Tensor, D: int, idx: Tensor | None, count: Tensor | None, scale: float
) -> Tensor:
    """One step of :func:`linear_bp`."""
    (B, N), at = dy.shape, _Addresses(dy.dtype)
    dx = dy.new_empty(B, D)
    weight = at(packed, _packed_size(N, D, dy.dtype))
    _call(
        "linear_bp", dy.dtype, sizes=[B], dy=at(dy), dx=at(dx),
        input=_linear(weight=weight, packed=True, D=D, N=N,
                      keep=_sets(at, idx, count, scale, 1, D)),
    )  # fmt: skip
    return dx


def steps_wg(
    xs: Sequence[Tensor],
    dys: Sequence[Tensor],
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
) -> Tensor:
    """dw ``[N, D]`` of steps x ``[B, D]`` and dy ``[B, N]`` wherever they lie."""
    if not len(xs) == len(dys) > 0:
        raise ValueError(f"every step needs its x and its dy, got {len(xs)} and {len(dys)}")
    (D, N), at = (xs[0].shape[1], dys[0].shape[1]), _Addresses(xs[0].dtype)
    dw, sizes = _new(xs[0], N, D), [len(x) for x in xs]
    if idx is not None and len(idx) != len(sizes):
        raise ValueError(f"{len(idx)} keep sets do not fit {len(sizes)} steps")
    _call(
        "steps_wg", dw.dtype, sizes=sizes, dw=at(dw),
        xs=[at(x, n, D) for x, n in zip(xs, sizes)],
        dys=[at(dy, n, N) for dy, n in zip(dys, sizes)],
        input=_linear(D=D, N=N, keep=_sets(at, idx, count, scale, len(sizes), D)),
    )  # fmt: skip
    return dw


def gates_fp(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """h and c ``[B, H]`` and the activated gates ``[B, 4H]``, of the ones before the activation."""
    (B, H), at = c.shape, _Addresses(gates.dtype)
    active, h, c_new = gates.new_empty(B, 4 * H), c.new_empty(B, H), c.new_empty(B, H)
    _call(
        "gates_fp", gates.dtype, gates=at(gates, B, 4 * H), c=at(c, B, H), B=B, H=H,
        active=at(active), c_new=at(c_new), h=at(h), threads=_team(gates),
    )  # fmt: skip
    return h, c_new, active


def gates_bp(
    dh: Tensor, dc: Tensor, active: Tensor, c: Tensor, c_new: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of the gates before the activation, and of c."""
    (B, H), at = c.shape, _Addresses(active.dtype)
    d_gates, dc = active.new_empty(B, 4 * H), dc.clone(memory_format=torch.contiguous_format)
    _call(
        "gates_bp", active.dtype, active=at(active, B, 4 * H), c=at(c, B, H), c_new=at(c_new, B, H),
        dh=at(dh, B, H), B=B, H=H, dc=at(dc, B, H), d_gates=at(d_gates), threads=_team(active),
    )  # fmt: skip
    return d_gates, dc


def attend_fp(memory: Tensor, lengths: Tensor | None, query: Tensor) -> tuple[Tensor, Tensor]:
    """The context ``[B, D]`` and the weights ``[B, S]`` of a query ``[B, D]``."""
    (B, S, D), at = memory.shape, _Addresses(memory.dtype)
    context, weights = query.new_empty(B, D), query.new_empty(B, S)
    _call(
        "attend_fp", memory.dtype, memory=_memory(at, memory, lengths), query=at(query, B, D),
        weights=at(weights), context=at(context), threads=_team(memory),
    )  # fmt: skip
    return context, weights


def attend_bp(
    memory: Tensor,
    lengths: Tensor | None,
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """d_scores ``[B, S]`` and d_query ``[B, D]``."""
    (B, S, D), at = memory.shape, _Addresses(memory.dtype)
    d_scores, d_query = weights.new_empty(B, S), weights.new_empty(B, D)
    _call(
        "attend_bp", memory.dtype, memory=_memory(at, memory, lengths), weights=at(weights, B, S),
        d_context=at(d_context, B, D), d_weights=at(d_weights, B, S), d_scores=at(d_scores),
        d_query=at(d_query), threads=_team(memory),
    )  # fmt: skip
    return d_scores, d_query


def _memory(at: _Addresses, memory: Tensor, lengths: Tensor | None) -> Any:
    B, S, D = memory.shape
    return require_native().MemoryOperands(
        memory=at(memory), lengths=at(lengths, B, dtype=torch.int64), B=B, S=S, D=D
    )


def _team(x: Tensor) -> int:
    """Threads for a few passes over x: waking them costs more than a little work."""
    return torch.get_num_threads() if x.numel() > 20_000 else 1


def _linear(
    *, D: int, N: int, keep: Any, x: int = 0, weight: int = 0, bias: int = 0,
    packed: bool = False,
) -> Any:  # fmt: skip
    return require_native().LinearOperands(
        x=x, weight=weight, packed=packed, bias=bias, D=D, N=N, keep=keep
    )


def nll_(logits: Tensor, targets: Tensor, smoothing: float, factor: float) -> tuple[Tensor, Tensor]:
    """The smoothed negative log-likelihood of each target under a row of ``logits [R, V]``, and
    whether it is the largest one: ``[R]`` each.

    The logits become the gradient of ``factor`` times the loss; with factor 0 they are waste.

    Raises:
        IndexError: a target outside [0, V).
    """
    (R, V), at = logits.shape, _Addresses(logits.dtype)
    if not logits.is_contiguous():  # a copy would be overwritten in its place
        raise ValueError("logits must be contiguous")
    losses, hits = logits.new_empty(R), logits.new_empty(R, dtype=torch.bool)
    _call(
        "nll", logits.dtype, logits=at(logits), targets=at(targets, R, dtype=torch.int64), R=R, V=V,
        smoothing=smoothing, factor=factor, losses=at(losses), hits=at(hits, dtype=torch.bool),
    )  # fmt: skip
    return losses, hits


def lstm_fp(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """All h ``[R, H]``, the activated gates ``[R, 4H]`` and all c ``[R, H]``.

    A random pattern gives ``mask`` (bool ``[T or 1, B, H]``) instead of ``idx`` and ``count``.
    """
    (B, H), at = h0.shape, _Addresses(gates_x.dtype)
    R = _batch(sizes, B)
    gates = _new(gates_x, R, 4 * H)
    hidden, cells = _new(gates_x, R, H), _new(gates_x, R, H)
    _call(
        "lstm_fp", gates_x.dtype, sizes=list(sizes), gates_x=at(gates_x, R, 4 * H),
        recurrence=_recurrence(
            weight=at(weight, 4 * H, H), h0=at(h0, B, H), c0=at(c0, B, H), B=B, H=H,
            keep=_sets(at, idx, count, scale, len(sizes), H, mask, B), reverse=reverse,
            gates=at(gates), cells=at(cells), hidden=at(hidden),
        ),
    )  # fmt: skip
    return hidden, gates, cells


def lstm_bp(
    d_hidden: Tensor,
    dh: Tensor,
    dc: Tensor,
    weight: Tensor,
    c0: Tensor,
    gates: Tensor,
    cells: Tensor,
    idx: Tensor | None,
    count: Tensor | None,
    mask: Tensor | None,
    scale: float,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """d_gates ``[R, 4H]`` before the activation, dh0 and dc0, from the gradients of h and c."""
    (B, H), at = c0.shape, _Addresses(gates.dtype)
    R = _batch(sizes, B)
    d_gates = _new(gates, R, 4 * H)
    dh, dc = (d.clone(memory_format=torch.contiguous_format) for d in (dh, dc))
    _call(
        "lstm_bp", gates.dtype, sizes=list(sizes), d_hidden=at(d_hidden, R, H), dh=at(dh, B, H),
        dc=at(dc, B, H), d_gates=at(d_gates),
        recurrence=_recurrence(
            weight=at(weight, 4 * H, H), c0=at(c0, B, H), B=B, H=H,
            keep=_sets(at, idx, count, scale, len(sizes), H, mask, B), reverse=reverse,
            gates=at(gates, R, 4 * H), cells=at(cells, R, H),
        ),
    )  # fmt: skip
    return d_gates, dh, dc


def lstm_wg(
    hidden: Tensor,
    h0: Tensor,
    d_gates: Tensor,
    idx: Tensor | None,
    count: Tensor | None,
    mask: Tensor | None,
    scale: float,
    sizes: Sequence[int],
    reverse: bool,
) -> Tensor:
    """dw ``[4H, H]`` of the recurrent weight: the states that entered each step times d_gates."""
    (B, H), at = h0.shape, _Addresses(hidden.dtype)
    R = _batch(sizes, B)
    dw = _new(hidden, 4 * H, H)
    _call(
        "lstm_wg", hidden.dtype, sizes=list(sizes), d_gates=at(d_gates, R, 4 * H), dw=at(dw),
        recurrence=_recurrence(
            h0=at(h0, B, H), B=B, H=H, keep=_sets(at, idx, count, scale, len(sizes), H, mask, B),
            reverse=reverse, hidden=at(hidden, R, H),
        ),
    )  # fmt: skip
    return dw


class Sets(NamedTuple):
    """What is kept of one input of a layer; see :func:`lstm_fp` for ``mask``."""

    idx: Tensor | None = None
    counts: Tensor | None = None
    scale: float = 1.0
    mask: Tensor | None = None


def layer_fp(
    x: Tensor,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    x_sets: Sets,
    h_sets: Sets,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`linear_fp` and :func:`lstm_fp` at once: all h, the activated gates and all c."""
    (B, H), D, at = h0.shape, x.shape[1], _Addresses(x.dtype)
    R = _batch(sizes, B)
    gates, hidden, cells = (_new(x, R, n * H) for n in (4, 1, 1))
    _call(
        "layer_fp", x.dtype, sizes=list(sizes),
        input=_linear(
            x=at(x, R, D), weight=at(weight_ih, 4 * H, D), bias=at(bias, 4 * H), D=D, N=4 * H,
            keep=_sets(at, *x_sets[:3], len(sizes), D),
        ),
        recurrence=_recurrence(
            weight=at(weight_hh, 4 * H, H), h0=at(h0, B, H), c0=at(c0, B, H), B=B, H=H,
            keep=_sets(at, *h_sets[:3], len(sizes), H, h_sets.mask, B), reverse=reverse,
            gates=at(gates), cells=at(cells), hidden=at(hidden),
        ),
    )  # fmt: skip
    return hidden, gates, cells


def layer_bp(
    d_hidden: Tensor,
    dh: Tensor,
    dc: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    hidden: Tensor,
    gates: Tensor,
    cells: Tensor,
    x_sets: Sets,
    h_sets: Sets,
    sizes: Sequence[int],
    reverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients dx, dw_ih, db, dw_hh, dh0 and dc0 of :func:`layer_fp`.

    ``needs``: which of the first four are wanted; the others come back empty. The gradient of the
    gates is scratch memory and never a tensor.
    """
    (B, H), D, at = h0.shape, x.shape[1], _Addresses(x.dtype)
    R = _batch(sizes, B)
    shapes = (R, D), (4 * H, D), (4 * H,), (4 * H, H)
    grads = [_new(x, *shape) if needed else x.new_empty(0) for shape, needed in zip(shapes, needs)]
    dh, dc = (d.clone(memory_format=torch.contiguous_format) for d in (dh, dc))
    out = [at(grad) if needed else 0 for grad, needed in zip(grads, needs)]
    _call(
        "layer_bp", x.dtype, sizes=list(sizes),
        input=_linear(
            x=at(x, R, D), weight=at(weight_ih, 4 * H, D), D=D, N=4 * H,
            keep=_sets(at, *x_sets[:3], len(sizes), D),
        ),
        recurrence=_recurrence(
            weight=at(weight_hh, 4 * H, H), h0=at(h0, B, H), c0=at(c0, B, H), B=B, H=H,
            keep=_sets(at, *h_sets[:3], len(sizes), H, h_sets.mask, B), reverse=reverse,
            gates=at(gates, R, 4 * H), cells=at(cells, R, H), hidden=at(hidden, R, H),
        ),
        grads=require_native().LayerGrads(
            d_hidden=at(d_hidden, R, H), dh=at(dh, B, H), dc=at(dc, B, H), dx=out[0], dw_ih=out[1],
            db=out[2], dw_hh=out[3],
        ),
    )  # fmt: skip
    dx, dw_ih, db, dw_hh = grads
    return dx, dw_ih, db, dw_hh, dh, dc


def _recurrence(
    *, B: int, H: int, keep: Any, reverse: bool, weight: int = 0, h0: int = 0, c0: int = 0,
    gates: int = 0, cells: int = 0, hidden: int = 0,
) -> Any:  # fmt: skip
    return require_native().RecurrenceOperands(
        weight=weight, h0=h0, c0=c0, B=B, H=H, keep=keep, reverse=reverse, gates=gates, cells=cells,
        hidden=hidden,
    )  # fmt: skip


LARGE = 1 << 20  # bytes


def _new(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor of a dtype. A large one lies in memory that the native module keeps for the
    next call: fresh from the system, its pages would be cleared first, every time."""
    if math.prod(shape) * like.element_size() < LARGE:
        return like.new_empty(shape)
    return from_dlpack(getattr(require_native(), f"fresh_{_suffix(like.dtype)}")(shape))


class _Addresses:
    """Addresses for one native call; holds what had to be copied until the call is over."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: list[Tensor] = []

    def __call__(self, x: Tensor | None, *shape: int, dtype: torch.dtype | None = None) -> int:
        if x is None:
            return 0
        dtype = dtype or self.dtype
        if not x.is_cpu or x.dtype != dtype or (shape and tuple(x.shape) != shape):
            raise ValueError(
                f"a CPU kernel needs {dtype} {list(shape or x.shape)}, "
                f"got {x.dtype} {list(x.shape)} on {x.device}"
            )
        x = x.contiguous()
        self.held.append(x)
        return x.data_ptr()


def _sets(
    at: _Addresses,
    idx: Tensor | None,
    count: Tensor | None,
    scale: float,
    T: int,
    D: int,
    mask: Tensor | None = None,
    B: int = 0,
) -> Any:
    """What is kept of an input of D units, in T steps; a mask is that of a state ``[B, D]``."""
    if (idx is None) is not (count is None):
        raise ValueError("keep sets need both idx and count, or neither")
    S = 1 if idx is None else idx.shape[0]
    if S not in (1, T):
        raise ValueError(f"{S} keep sets do not fit {T} steps: 1 or {T} are needed")
    M = 0 if mask is None else mask.shape[0]
    if mask is not None and M not in (1, T):
        raise ValueError(f"a mask of {M} steps does not fit {T} steps: 1 or {T} are needed")
    return require_native().KeepOperand(
        idx=at(idx, S, D, dtype=torch.int32), count=at(count, S, dtype=torch.int32), sets=S,
        scale=scale, mask=at(mask, M, B, D, dtype=torch.bool), mask_sets=M,
    )  # fmt: skip


def _batch(sizes: Sequence[int], B: int) -> int:
    """R, of steps of which the first has all B rows (and none more: the native side sees to it)."""
    if sizes and sizes[0] != B:
        raise ValueError(f"the first step has {sizes[0]} rows, the first state {B}")
    return sum(sizes)


def _suffix(dtype: torch.dtype) -> str:
    if dtype not in DTYPES:
        raise TypeError(f"the CPU kernels are for torch.float32 and torch.float64, got {dtype}")
    return DTYPES[dtype]


def _call(name: str, dtype: torch.dtype, *, threads: int = 0, **operands: Any) -> None:
    """Run a kernel on as many threads as torch has, or ``threads``."""
    kernel = getattr(require_native(), f"{name}_{_suffix(dtype)}")
    kernel(threads=threads or torch.get_num_threads(), **operands)
