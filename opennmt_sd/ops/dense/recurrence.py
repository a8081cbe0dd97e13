"""A recurrence with structured dropout, whatever the cell: some three launches a step forward and
four backward, and one weight gradient for all steps.

cuDNN has no recurrent dropout. Of what is kept of h the product is dense; the scale is the
weight's.
States are float32 at least, whatever the products are computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.dropout import Keep
from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.dense.cells import Cell, State
from opennmt_sd.ops.portable.linear import sum_dtype


class Operands(NamedTuple):
    """The operands of a recurrence.

    gates_x ``[T, B, gates H]`` or packed: the product of the input, biases included. weight_hh
    ``[gates H, H]`` and bias_h ``[gates H]``: of the state's product. state ``[B, H]`` each. keep,
    batch_sizes, reverse: as in :func:`opennmt_sd.ops.lstm_layer`, keep of the state.
    """

    cell: Cell
    gates_x: Tensor
    weight_hh: Tensor
    bias_h: Tensor | None
    state: State
    keep: Keep | None = None
    batch_sizes: Tensor | None = None
    reverse: bool = False

    @property
    def T(self) -> int:  # noqa: N802 - the field's name
        return len(self.gates_x if self.batch_sizes is None else self.batch_sizes)


class Recurrence(Protocol):
    """A way to run a recurrence: the loop below, Triton's kernels, or whichever is faster."""

    def __call__(self, a: Operands, /) -> tuple[Tensor, State]:
        """Return all h, in the layout of the gates, and the final state."""


def recurrence(a: Operands) -> tuple[Tensor, State]:
    """Run the steps one after the other: see :class:`Recurrence`."""
    gates_x, keep = a.gates_x, a.keep
    sizes = [gates_x.shape[1]] * a.T if a.batch_sizes is None else a.batch_sizes.tolist()
    dropped = None if keep is None else keep.dropped(gates_x.device)
    scale = 1.0 if keep is None else keep.scale
    hidden, *final = _Recurrence.apply(
        a.cell, gates_x.flatten(0, -2), a.weight_hh, a.bias_h, dropped, scale, sizes, a.reverse,
        *a.state,
    )  # fmt: skip
    return hidden.view(*gates_x.shape[:-1], hidden.shape[-1]), tuple(final)


class _Alive:
    """Tensors of the sequences that are alive at a step, which are the first ones.

    Args:
        rest: what those that begin later begin with, ``[B, H]`` each.
        n: how many are alive at first.
    """

    def __init__(self, rest: State, n: int) -> None:
        self._rest, self.now = rest, tuple(x[:n] for x in rest)
        self._ended: list[State] = []

    def resize(self, n: int) -> None:
        alive = len(self.now[0])
        if n > alive:
            later = (x[alive:n] for x in self._rest)
            self.now = tuple(torch.cat(pair) for pair in zip(self.now, later))
        elif n < alive:
            self._ended.append(tuple(x[n:] for x in self.now))
            self.now = tuple(x[:n] for x in self.now)

    def whole(self) -> State:
        """Return ``[B, H]`` each, of tensors of their own: of each sequence the last."""
        parts = zip(self.now, *reversed(self._ended))
        return tuple(torch.cat(part) if len(part) > 1 else part[0].clone() for part in parts)


class _Mask:
    """What is dropped at each step."""

    def __init__(self, dropped: Tensor | None, dtype: torch.dtype) -> None:
        self.dropped = dropped  # [S, 1 or B, H]
        if dropped is not None:
            self._zero = torch.zeros((), dtype=dtype, device=dropped.device)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return x ``[n, H]`` with zeros in the units of step t."""
        if self.dropped is None:
            return x
        dropped = self.dropped[t if len(self.dropped) > 1 else 0]  # [1 or B, H]
        return torch.where(dropped[: len(x)] if len(dropped) > 1 else dropped, self._zero, x)


class _Recurrence(Function):
    @staticmethod
    def forward(
        ctx: Any, cell: Cell, gates_x: Tensor, weight_hh: Tensor, bias_h: Tensor | None,
        dropped: Tensor | None, scale: float, sizes: list[int], reverse: bool, *state: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        acc, dtype = sum_dtype(gates_x), gates_x.dtype
        weight = weight_hh if dropped is None else weight_hh * scale
        rows, mask, steps = (
            gates_x.to(acc).split(sizes),
            _Mask(dropped, acc),
            _order(sizes, reverse),
        )
        alive = _Alive(tuple(s.to(acc) for s in state), sizes[steps[0]])
        hidden: list[Any] = [None] * len(sizes)
        needed: list[Any] = [None] * len(sizes)
        for t in steps:
            alive.resize(sizes[t])
            kept = mask(alive.now[0], t).to(dtype)
            gates_h = F.linear(kept, weight, bias_h).to(acc)
            alive.now, of_cell = cell.forward(rows[t], gates_h, alive.now)
            hidden[t], needed[t] = alive.now[0], (kept, *of_cell)
        ctx.parts = len(needed[0])
        ctx.save_for_backward(weight, dropped, *(x for of_step in needed for x in of_step))
        ctx.cell, ctx.scale, ctx.sizes, ctx.reverse = cell, scale, sizes, reverse
        return (torch.cat(hidden).to(dtype), *(s.to(dtype) for s in alive.whole()))

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, *d_final: Tensor) -> Any:
        refuse_second_derivatives("dense", d_hidden, *d_final)
        refuse_batched_gradients("dense", d_hidden, *d_final)
        weight, dropped, *saved = ctx.saved_tensors
        needed = [saved[n : n + ctx.parts] for n in range(0, len(saved), ctx.parts)]
        acc, dtype = sum_dtype(weight), weight.dtype
        rows, mask = d_hidden.to(acc).split(ctx.sizes), _Mask(dropped, acc)
        steps = _order(ctx.sizes, not ctx.reverse)
        alive = _Alive(tuple(d.to(acc) for d in d_final), ctx.sizes[steps[0]])
        of_x: list[Any] = [None] * len(needed)
        of_h: list[Any] = [None] * len(needed)
        for t in steps:
            alive.resize(ctx.sizes[t])
            dh, *others = alive.now
            _, *of_cell = needed[t]
            step = ctx.cell.backward((dh + rows[t], *others), tuple(of_cell))
            before, of_x[t] = step.state, step.gates_x.to(dtype)
            of_h[t] = of_x[t] if step.gates_h is step.gates_x else step.gates_h.to(dtype)
            dh = mask((of_h[t] @ weight).to(acc), t)
            first = dh if before[0] is None else dh + before[0]
            alive.now = (first, *before[1:])
        d_gates_x = torch.cat(of_x)
        d_gates_h = d_gates_x if of_h[0] is of_x[0] else torch.cat(of_h)
        _, _, need_weight, need_bias, *_ = ctx.needs_input_grad
        dw = None
        if need_weight:
            dw = d_gates_h.t() @ torch.cat([kept for kept, *_ in needed])
            dw = dw if dropped is None else dw * ctx.scale
        db = d_gates_h.sum(0) if need_bias else None
        of_state = (d.to(dtype) for d in alive.whole())
        return (None, d_gates_x, dw, db, None, None, None, None, *of_state)


def _order(sizes: Sequence[int], reverse: bool) -> list[int]:
    steps = list(range(len(sizes)))
    return steps[::-1] if reverse else steps
