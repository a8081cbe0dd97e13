"""The texts of what the linear ops and the loss refuse: the value, the rule, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.dropout.staggered import StaggeredSets

X, W, BIAS = torch.zeros(4, 3, 6), torch.zeros(5, 6), torch.zeros(5)
LOSS = {
    "x": X, "keep": None, "weight": W, "bias": BIAS,
    "targets": torch.zeros(4, 3, dtype=torch.int64),
}  # fmt: skip
HANDLE = "handle"  # a handle of W, prepared in the test


def sizes(*n: Any) -> torch.Tensor:
    return torch.tensor(n)


def sets(T: int, D: int) -> Any:
    return DropoutPattern(0.5).draw(T, 3, D)


def mask(T: int, B: int, D: int) -> Any:
    return DropoutPattern(0.5, "random").draw(T, B, D)


# id: op, arguments, error, text
REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = {
    "integers": (
        ops.masked_linear, {"x": X.long(), "keep": None, "weight": W},
        TypeError, "x must be floating point, got torch.int64",
    ),
    "two axes": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W},
        ValueError, "x must be [T, B, D] (time first), or packed [rows, D] with batch_sizes; "
                    "got [3, 6]",
    ),
    "packed, three axes": (
        ops.masked_linear, {"x": X, "keep": None, "weight": W, "batch_sizes": sizes(3, 1)},
        ValueError, "packed x must be [sum(batch_sizes), D], got [4, 3, 6]",
    ),
    "a negative size": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W, "batch_sizes": sizes(4, -1)},
        ValueError, "batch_sizes must not be negative, got [4, -1]",
    ),
    "sizes of other rows": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W, "batch_sizes": sizes(3, 1)},
        ValueError, "batch_sizes add up to 4, x has 3 rows",
    ),
    "sizes as a list": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W, "batch_sizes": [2, 1]},
        TypeError, "batch_sizes must be a tensor, got list",
    ),
    "sizes that are no integers": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W, "batch_sizes": sizes(2.0, 1.0)},
        ValueError, "batch_sizes must be int64 [T] on the CPU, as in a PackedSequence; got "
                    "torch.float32 [2] on cpu",
    ),
    "sizes with two axes": (
        ops.masked_linear, {"x": X[0], "keep": None, "weight": W, "batch_sizes": sizes([2], [1])},
        ValueError, "batch_sizes must be int64 [T] on the CPU, as in a PackedSequence; got "
                    "torch.int64 [2, 1] on cpu",
    ),
    "sizes elsewhere": (
        ops.masked_linear,
        {"x": X[0], "keep": None, "weight": W, "batch_sizes": sizes(2, 1).to("meta")},
        ValueError, "batch_sizes must be int64 [T] on the CPU, as in a PackedSequence; got "
                    "torch.int64 [2] on meta",
    ),
    "weight of another width": (
        ops.masked_linear, {"x": X, "keep": None, "weight": W.t()},
        ValueError, "weight must be [N, 6] as in nn.Linear, got [6, 5]",
    ),
    "bias of another width": (
        ops.masked_linear, {"x": X, "keep": None, "weight": W, "bias": BIAS[:4]},
        ValueError, "bias must be [5], got [4]",
    ),
    "a rate for sets": (
        ops.masked_linear, {"x": X, "keep": 0.5, "weight": W},
        TypeError, "keep must come from DropoutPattern.draw, got float",
    ),
    "sets of another width": (
        ops.masked_linear, {"x": X, "keep": sets(4, 7), "weight": W},
        ValueError, "keep sets of width 7 do not fit an input of width 6",
    ),
    "sets of other steps": (
        ops.masked_linear, {"x": X, "keep": sets(3, 6), "weight": W},
        ValueError, "keep sets of 3 steps do not fit an input of 4 steps (1 or 4 are needed); ops "
                    "take the time first: [T, B, D]",
    ),
    "mask of another batch": (
        ops.masked_linear, {"x": X, "keep": mask(4, 2, 6), "weight": W},
        ValueError, "what is kept of a batch of 2 does not fit one of 3",
    ),
    "staggered sets of another batch": (
        ops.masked_linear, {"x": X, "keep": StaggeredSets.of(sets(4, 6), 4, 2), "weight": W},
        ValueError, "what is kept of a batch of 2 does not fit one of 3",
    ),
    "two dtypes": (
        ops.masked_linear, {"x": X.double(), "keep": None, "weight": W, "bias": BIAS},
        ValueError, "all inputs need one dtype: x torch.float64, weight torch.float32, "
                    "bias torch.float32",
    ),
    "two devices": (
        ops.masked_linear, {"x": X, "keep": None, "weight": W.to("meta")},
        ValueError, "all inputs need one device: x cpu, weight meta",
    ),
    "targets of another shape": (
        ops.projected_nll, {**LOSS, "targets": torch.zeros(12, dtype=torch.int64)},
        ValueError, "targets must be int64 [4, 3], one for each row of x; got torch.int64 [12]",
    ),
    "targets of another dtype": (
        ops.projected_nll, {**LOSS, "targets": torch.zeros(4, 3, dtype=torch.int32)},
        ValueError, "targets must be int64 [4, 3], one for each row of x; got torch.int32 [4, 3]",
    ),
    "too much smoothing": (
        ops.projected_nll, {**LOSS, "label_smoothing": 1.5},
        ValueError, "label_smoothing must be in [0, 1], got 1.5",
    ),
    "prepare: integers": (
        ops.prepare, {"weight": W.long()},
        TypeError, "weight must be floating point, got torch.int64",
    ),
    "prepare: one axis": (
        ops.prepare, {"weight": BIAS},
        ValueError, "weight must be [N, 5] as in nn.Linear, got [5]",
    ),
    "prepare: bias of another width": (
        ops.prepare, {"weight": W, "bias": BIAS[:2]},
        ValueError, "bias must be [5], got [2]",
    ),
    "prepare: two dtypes": (
        ops.prepare, {"weight": W, "bias": BIAS.double()},
        ValueError, "all inputs need one dtype: weight torch.float32, bias torch.float64",
    ),
    "step: with time": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X},
        ValueError, "x must be [n, 6] for a prepared weight [5, 6], got [4, 3, 6]",
    ),
    "step: of another width": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0, :, :5]},
        ValueError, "x must be [n, 6] for a prepared weight [5, 6], got [3, 5]",
    ),
    "step: no such step": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0], "keep": sets(4, 6), "t": 4},
        IndexError, "step 4 is out of range: the keep sets hold 4 steps",
    ),
    "step: counted from the end": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0], "keep": sets(4, 6), "t": -1},
        IndexError, "step -1 is out of range: the keep sets hold 4 steps",
    ),
    "step: sets of another width": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0], "keep": sets(4, 5)},
        ValueError, "keep sets of width 5 do not fit an input of width 6",
    ),
    "step: mask of another batch": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0], "keep": mask(4, 2, 6)},
        ValueError, "what is kept of a batch of 2 does not fit one of 3",
    ),
    "step: two dtypes": (
        ops.masked_linear_step, {"handle": HANDLE, "x": X[0].double()},
        ValueError, "all inputs need one dtype: x torch.float64, weight torch.float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("op", "given", "error", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(any_engine: str, refuses, op, given: dict[str, Any], error, text: str) -> None:
    refuses(op, {n: ops.prepare(W) if v is HANDLE else v for n, v in given.items()}, error, text)
