"""A recurrence, step by step, whatever the cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]


def recurrence(
    rows: Tensor,
    state: State,
    step: Callable[[Tensor, State, int], State],
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Return the first tensor of each step's state, in the layout of the rows, and the last state.

    Args:
        rows: ``[T, B, .]`` or packed: what each step reads beside the state.
        state: ``[B, H]`` each.
        step: of the rows ``[n, .]``, the state ``[n, H]`` and t: the new state.
        batch_sizes, reverse: as in :func:`opennmt_sd.ops.lstm_layer`.
    """
    # T of [B, .], or of [batch_sizes[t], .]
    steps = rows.unbind(0) if batch_sizes is None else rows.split(batch_sizes.tolist())
    outputs = [state[0]] * len(steps)
    order = range(len(steps))
    for t in reversed(order) if reverse else order:
        n = steps[t].shape[0]  # the sequences that are alive at t come first
        new = step(steps[t], tuple(s[:n] for s in state), t)
        outputs[t] = new[0]
        state = tuple(torch.cat([s_t, s[n:]]) for s_t, s in zip(new, state))
    return (torch.stack if batch_sizes is None else torch.cat)(outputs), state
