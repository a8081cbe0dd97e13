"""A recurrence with structured dropout by kernels: all steps in one launch, forward and backward.

cuDNN has no recurrent dropout. What a step takes of the step before is written masked and scaled,
which is also what the weight's gradient needs: one product for all steps, torch's own.
Same operands as the dense engine's loop, :func:`opennmt_sd.ops.dense.recurrence.recurrence`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from opennmt_sd.ops.checks import refuse_batched_gradients, refuse_second_derivatives
from opennmt_sd.ops.dense.cells import State
from opennmt_sd.ops.dense.recurrence import Operands
from opennmt_sd.ops.triton import launch
from opennmt_sd.ops.triton.operands import Steps


def recurrence(a: Operands) -> tuple[Tensor, State]:
    """Do what :func:`opennmt_sd.ops.dense.recurrence.recurrence` does, for cells that there are
    kernels for; an LSTM has no bias_h, which its kernels would not add."""
    gates_x = a.gates_x
    steps = Steps.of(gates_x, len(a.state[0]), a.keep, a.batch_sizes, a.reverse)
    hidden, *final = _Recurrence.apply(
        type(a.cell).__name__, steps, gates_x.flatten(0, -2), a.weight_hh, a.bias_h, *a.state
    )
    return hidden.view(*gates_x.shape[:-1], hidden.shape[-1]), tuple(final)


class _Recurrence(Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, steps: Steps, gates_x: Tensor, weight: Tensor, bias: Tensor | None,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        hidden, final, left = launch.fp(cell, steps, gates_x, weight, bias, state)
        ctx.save_for_backward(weight, *left, *state)
        ctx.cell, ctx.steps = cell, steps
        return (hidden, *final)

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, *d_state: Tensor) -> Any:
        refuse_second_derivatives("dense", d_hidden, *d_state)
        refuse_batched_gradients("dense", d_hidden, *d_state)
        weight, *saved = ctx.saved_tensors
        left, state = launch.Left(*saved[:4]), saved[4:]
        d_gates_x, d_gates_h, d_first = launch.bp(
            ctx.cell, ctx.steps, left, weight, tuple(state), d_hidden, d_state
        )
        _, _, _, need_weight, need_bias, *_ = ctx.needs_input_grad
        dw = d_gates_h.t() @ left.masked if need_weight else None
        db = d_gates_h.sum(0) if need_bias else None
        return (None, None, d_gates_x, dw, db, *d_first)
