"""States of recurrent layers, given and returned: the batch in another order, or none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

State = tuple[Tensor, ...]


def permuted(state: State | None, order: Tensor | None) -> Any:
    """Return the state with the batch in another order."""
    if state is None or order is None:
        return state
    return tuple(s.index_select(1, order) for s in state)


def batched(state: State, unbatched: bool) -> State:
    """Return a given state as ``[layers * directions, B, H]`` each.

    Raises:
        RuntimeError: the state has another number of axes than the input asks for.
    """
    wanted = 2 if unbatched else 3
    if any(s.dim() != wanted for s in state):
        given = ", ".join(f"{s.dim()}-D" for s in state)
        layout = "an unbatched 2-D input" if unbatched else "a batched 3-D input"
        raise RuntimeError(f"{layout} needs a {wanted}-D hx, got ({given})")
    return tuple(s.unsqueeze(1) for s in state) if unbatched else tuple(state)
