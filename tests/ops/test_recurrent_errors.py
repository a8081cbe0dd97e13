"""The texts of what the recurrent ops refuse: the value, the rule, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern, ops

X = torch.zeros(4, 3, 6)
GATES, W_HH, STATE = torch.zeros(4, 3, 8), torch.zeros(8, 2), torch.zeros(3, 2)
LAYER = {"x": X, "keep": None, "weight_ih": torch.zeros(8, 6), "bias": torch.zeros(8),
         "weight_hh": W_HH, "h": STATE, "c": STATE}  # fmt: skip
GRU = {"x": X, "keep": None, "weight_ih": torch.zeros(6, 6), "bias": torch.zeros(6),
       "weight_hh": torch.zeros(6, 2), "bias_hn": torch.zeros(2), "h": STATE}  # fmt: skip
GRU_GATES = {"gates_x": torch.zeros(3, 6), "gates_h": torch.zeros(3, 6), "h": STATE}


def sets(T: int, D: int) -> Any:
    return DropoutPattern(0.5).draw(T, 3, D)


def mask(T: int, B: int, D: int) -> Any:
    return DropoutPattern(0.5, "random").draw(T, B, D)


# id: op, arguments, error, text
REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = {
    "layer: integers": (
        ops.lstm_layer, LAYER | {"x": X.long()},
        TypeError, "x must be floating point, got torch.int64",
    ),
    "layer: two axes": (
        ops.lstm_layer, LAYER | {"x": X[0]},
        ValueError, "x must be [T, B, D] (time first), or packed [rows, D] with batch_sizes; "
                    "got [3, 6]",
    ),
    "layer: no steps": (
        ops.lstm_layer, LAYER | {"x": X[:0]},
        ValueError, "x must have at least one step, got [0, 3, 6]",
    ),
    "layer: packed, no steps": (
        ops.lstm_layer, LAYER | {"x": X[0, :0], "batch_sizes": torch.tensor([], dtype=torch.int64)},
        ValueError, "x must have at least one step, got [0, 6]",
    ),
    "layer: sizes that grow": (
        ops.lstm_layer, LAYER | {"x": X[0], "batch_sizes": torch.tensor([1, 2])},
        ValueError, "batch_sizes must be positive and must not grow, got [1, 2]",
    ),
    "layer: a size of 0": (
        ops.lstm_layer, LAYER | {"x": X[0], "batch_sizes": torch.tensor([3, 0])},
        ValueError, "batch_sizes must be positive and must not grow, got [3, 0]",
    ),
    "layer: weight_ih of another width": (
        ops.lstm_layer, LAYER | {"weight_ih": torch.zeros(8, 5)},
        ValueError, "weight_ih must be [N, 6] as in nn.Linear, got [8, 5]",
    ),
    "layer: weight_ih of other gates": (
        ops.lstm_layer, LAYER | {"weight_ih": torch.zeros(12, 6)},
        ValueError, "weight_ih [4H, D] and weight_hh [4H, H] do not fit: [12, 6] and [8, 2]",
    ),
    "layer: weight_hh of other gates": (
        ops.lstm_layer, LAYER | {"weight_hh": torch.zeros(8, 3)},
        ValueError, "weight_ih [4H, D] and weight_hh [4H, H] do not fit: [8, 6] and [8, 3]",
    ),
    "layer: bias of another width": (
        ops.lstm_layer, LAYER | {"bias": torch.zeros(2)},
        ValueError, "bias must be [8], got [2]",
    ),
    "layer: h of another batch": (
        ops.lstm_layer, LAYER | {"h": STATE[:1]},
        ValueError, "h must be [3, 2] (batch, hidden), got [1, 2]",
    ),
    "layer: c with layers": (
        ops.lstm_layer, LAYER | {"c": STATE[None]},
        ValueError, "c must be [3, 2] (batch, hidden), got [1, 3, 2]",
    ),
    "layer: c of another width": (
        ops.lstm_layer, LAYER | {"c": torch.zeros(3, 1)},
        ValueError, "c must be [3, 2] (batch, hidden), got [3, 1]",
    ),
    "layer: sets of another width": (
        ops.lstm_layer, LAYER | {"keep": sets(4, 2)},
        ValueError, "keep sets of width 2 do not fit an input of width 6",
    ),
    "layer: sets of the state of another width": (
        ops.lstm_layer, LAYER | {"state_keep": sets(4, 6)},
        ValueError, "keep sets of width 6 do not fit an input of width 2",
    ),
    "layer: sets of the state of other steps": (
        ops.lstm_layer, LAYER | {"state_keep": sets(3, 2)},
        ValueError, "keep sets of 3 steps do not fit an input of 4 steps (1 or 4 are needed); ops "
                    "take the time first: [T, B, D]",
    ),
    "layer: mask of the state of another batch": (
        ops.lstm_layer, LAYER | {"state_keep": mask(4, 2, 2)},
        ValueError, "what is kept of a batch of 2 does not fit one of 3",
    ),
    "layer: two dtypes": (
        ops.lstm_layer, LAYER | {"weight_hh": W_HH.double(), "bias": None},
        ValueError, "all inputs need one dtype: x torch.float32, weight_ih torch.float32, "
                    "weight_hh torch.float64, h torch.float32, c torch.float32",
    ),
    "layer: two devices": (
        ops.lstm_layer, LAYER | {"weight_ih": torch.zeros(8, 6, device="meta"), "bias": None},
        ValueError, "all inputs need one device: x cpu, weight_ih meta, weight_hh cpu, h cpu, "
                    "c cpu",
    ),
    "gates: of another width": (
        ops.lstm_gates, {"gates": GATES[0], "c": torch.zeros(3, 3)},
        ValueError, "gates must be [B, 4H] and c [B, H], got [3, 8] and [3, 3]",
    ),
    "gates: with time": (
        ops.lstm_gates, {"gates": GATES, "c": STATE},
        ValueError, "gates must be [B, 4H] and c [B, H], got [4, 3, 8] and [3, 2]",
    ),
    "gates: integers": (
        ops.lstm_gates, {"gates": GATES[0].long(), "c": STATE},
        TypeError, "gates must be floating point, got torch.int64",
    ),
    "gates: a cell of integers": (
        ops.lstm_gates, {"gates": GATES[0], "c": STATE.long()},
        TypeError, "c must be floating point, got torch.int64",
    ),
    "gates: two devices": (
        ops.lstm_gates, {"gates": GATES[0], "c": STATE.to("meta")},
        ValueError, "all inputs need one device: gates cpu, c meta",
    ),
    "GRU: no steps": (
        ops.gru_layer, GRU | {"x": X[:0]},
        ValueError, "x must have at least one step, got [0, 3, 6]",
    ),
    "GRU: weights of an LSTM": (
        ops.gru_layer, GRU | {"weight_ih": torch.zeros(8, 6), "weight_hh": W_HH},
        ValueError, "weight_ih [3H, D] and weight_hh [3H, H] do not fit: [8, 6] and [8, 2]",
    ),
    "GRU: bias of another width": (
        ops.gru_layer, GRU | {"bias": torch.zeros(8)},
        ValueError, "bias must be [6], got [8]",
    ),
    "GRU: a whole bias_hh": (
        ops.gru_layer, GRU | {"bias_hn": torch.zeros(6)},
        ValueError, "bias_hn must be [2], got [6]",
    ),
    "GRU: h with layers": (
        ops.gru_layer, GRU | {"h": STATE[None]},
        ValueError, "h must be [3, 2] (batch, hidden), got [1, 3, 2]",
    ),
    "GRU: sets of the state of other steps": (
        ops.gru_layer, GRU | {"state_keep": sets(3, 2)},
        ValueError, "keep sets of 3 steps do not fit an input of 4 steps (1 or 4 are needed); ops "
                    "take the time first: [T, B, D]",
    ),
    "GRU: two dtypes": (
        ops.gru_layer, GRU | {"bias_hn": torch.zeros(2).double(), "bias": None},
        ValueError, "all inputs need one dtype: x torch.float32, weight_ih torch.float32, "
                    "weight_hh torch.float32, bias_hn torch.float64, h torch.float32",
    ),
    "GRU's gates: of an LSTM": (
        ops.gru_gates, GRU_GATES | {"gates_x": torch.zeros(3, 8)},
        ValueError, "gates_x and gates_h must be [B, 3H] and h [B, H], got [3, 8], [3, 6] and "
                    "[3, 2]",
    ),
    "GRU's gates: h of one axis": (
        ops.gru_gates, GRU_GATES | {"h": STATE[0]},
        ValueError, "gates_x and gates_h must be [B, 3H] and h [B, H], got [3, 6], [3, 6] and [2]",
    ),
    "GRU's gates: integers": (
        ops.gru_gates, GRU_GATES | {"gates_h": torch.zeros(3, 6).long()},
        TypeError, "gates_h must be floating point, got torch.int64",
    ),
    "GRU's gates: two devices": (
        ops.gru_gates, GRU_GATES | {"h": STATE.to("meta")},
        ValueError, "all inputs need one device: gates_x cpu, gates_h cpu, h meta",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("op", "given", "error", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(any_engine: str, refuses, op, given: dict[str, Any], error, text: str) -> None:
    refuses(op, given, error, text)
