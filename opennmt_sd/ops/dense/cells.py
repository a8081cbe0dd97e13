"""The pointwise part of one step: one fused launch where torch has one, else plain torch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from opennmt_sd import compat
from opennmt_sd.ops.portable import gru, lstm

State = tuple[Tensor, ...]  # [n, H] each; h is the first


class Backward(NamedTuple):
    """The gradients of a step: of what either product gave, and of the state before as far as it
    does not come through the product; None for nothing."""

    gates_x: Tensor
    gates_h: Tensor
    state: tuple[Tensor | None, ...]


class Cell(Protocol):
    """What a recurrence asks of a cell."""

    def forward(
        self, gates_x: Tensor, gates_h: Tensor, state: State
    ) -> tuple[State, tuple[Tensor, ...]]:
        """Return the new state, and what backward needs."""

    def backward(self, d_state: State, needed: tuple[Tensor, ...]) -> Backward:
        """Return the gradients of the new state's."""


def fused(x: Tensor) -> bool:
    """Return whether torch has fused cells for x."""
    return x.is_cuda


class LSTM:
    """Gates i, f, g, o; a state is h and c."""

    @staticmethod
    def forward(gates_x: Tensor, gates_h: Tensor, state: State) -> tuple[State, tuple[Tensor, ...]]:
        c_before = state[1]
        if fused(gates_x):
            h, c, gates = compat.lstm_cell(gates_x, gates_h, c_before)
        else:
            gates = gates_x + gates_h
            h, c = lstm.gates_forward(gates, c_before)
        return (h, c), (gates, c_before, c)

    @staticmethod
    def backward(d_state: State, needed: tuple[Tensor, ...]) -> Backward:
        (dh, dc), (gates, c_before, c) = d_state, needed
        if fused(gates):
            d_gates, dc = compat.lstm_cell_backward(dh, dc, c_before, c, gates)
        else:
            d_gates, dc = lstm.gates_backward(gates, c_before, c, dh, dc)
        return Backward(d_gates, d_gates, (None, dc))


class GRU:
    """Gates r, z, n; a state is h."""

    @staticmethod
    def forward(gates_x: Tensor, gates_h: Tensor, state: State) -> tuple[State, tuple[Tensor, ...]]:
        (h,) = state
        if fused(gates_x):
            new, workspace = compat.gru_cell(gates_x, gates_h, h)
            return (new,), (workspace,)
        gates, new = gru.gates_forward(gates_x, gates_h, h)
        return (new,), (gates, gates_h[:, -h.shape[1] :], h)

    @staticmethod
    def backward(d_state: State, needed: tuple[Tensor, ...]) -> Backward:
        (dh,) = d_state
        if fused(dh):
            (workspace,) = needed
            d_x, d_h, d_before = compat.gru_cell_backward(dh, workspace)
        else:
            gates, q, h = needed
            d_x, d_h, d_before = gru.gates_backward(gates, q, h, dh)
        return Backward(d_x, d_h, (d_before,))
