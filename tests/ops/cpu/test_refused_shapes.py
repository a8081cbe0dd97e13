"""A kernel refuses shapes and cells that it cannot compute, whoever calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd.ops.cpu import kernels

pytestmark = pytest.mark.usefixtures("native")

T, B, D, N = 4, 3, 8, 5  # steps, rows, units, outputs
PADDED = [B] * T
KEPT = kernels.Sets()  # everything


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def gru_layer(**other: Any) -> kernels.gru.Layer:
    all_kept, where = kernels.Sets(), kernels.Rows(T, None)
    return kernels.gru.Layer(
        zeros(T * B, D), zeros(3 * D, D), None, zeros(3 * D, D), None, zeros(B, D), all_kept,
        all_kept, where, False,
    )._replace(**other)  # fmt: skip


# What is wrong: the call, what is said to be needed.
SHAPES: dict[str, tuple[Callable[[], Any], str]] = {
    "x": (lambda: kernels.linear_fp(zeros(11, D), zeros(N, D), None, KEPT, PADDED),
          "torch.float32 [12, 8], got torch.float32 [11, 8]"),
    "weight": (lambda: kernels.linear_fp(zeros(12, D), zeros(D, N), None, KEPT, PADDED),
               "torch.float32 [8, 8], got torch.float32 [8, 5]"),
    "bias": (lambda: kernels.linear_fp(zeros(12, D), zeros(N, D), zeros(D), KEPT,
                                       PADDED),
             "torch.float32 [5], got torch.float32 [8]"),
    "weight of another dtype": (
        lambda: kernels.linear_fp(zeros(12, D), zeros(N, D).double(), None, KEPT,
                                  PADDED),
        "torch.float32 [5, 8], got torch.float64 [5, 8]"),
    "dy": (lambda: kernels.linear_bp(zeros(11, N), zeros(N, D), KEPT, PADDED),
           "torch.float32 [12, 5], got torch.float32 [11, 5]"),
    "weight_hh": (lambda: kernels.lstm_fp(zeros(12, 32), zeros(24, D), zeros(B, D), zeros(B, D),
                                          KEPT, PADDED, False),
                  "torch.float32 [32, 8], got torch.float32 [24, 8]"),
    "gates": (lambda: kernels.lstm_fp(zeros(12, 24), zeros(32, D), zeros(B, D), zeros(B, D),
                                      KEPT, PADDED, False),
              "torch.float32 [12, 32], got torch.float32 [12, 24]"),
    "c": (lambda: kernels.gates_fp(zeros(B, 4 * D), zeros(B, D).double()),
          "torch.float32 [3, 8], got torch.float64 [3, 8]"),
    "a GRU's weight_hh": (lambda: kernels.gru.layer_fp(gru_layer(weight_hh=zeros(32, D))),
                          "torch.float32 [24, 8], got torch.float32 [32, 8]"),
    "a GRU's bias": (lambda: kernels.gru.layer_fp(gru_layer(bias=zeros(32))),
                     "torch.float32 [24], got torch.float32 [32]"),
    "a GRU's bias_hn": (lambda: kernels.gru.layer_fp(gru_layer(bias_hn=zeros(24))),
                        "torch.float32 [8], got torch.float32 [24]"),
    "what a GRU saved": (
        lambda: kernels.gru.layer_bp(kernels.gru.LayerBP(
            zeros(12, D), zeros(B, D), gru_layer(), zeros(12, D), zeros(12, 24),
            kernels.gru.Needs(*[True] * 5))),
        "torch.float32 [12, 32], got torch.float32 [12, 24]"),
    "the state's part of a GRU's gates": (
        lambda: kernels.gru.gates_fp(zeros(B, 3 * D), zeros(B, 4 * D), zeros(B, D)),
        "torch.float32 [3, 24], got torch.float32 [3, 32]"),
    "a packed weight": (
        lambda: kernels.step_fp(zeros(B, D), kernels.prepare(zeros(N, D)), 500, None, KEPT),
        "torch.float32"),
    "a packed weight of another layer": (
        lambda: kernels.step_bp(zeros(B, N), kernels.prepare(zeros(N, D)), 9, KEPT),
        "torch.float32"),
    "the weight, not packed": (
        lambda: kernels.step_fp(zeros(B, D), zeros(N, D), N, None, KEPT),
        "torch.float32"),
    "a step's dy": (
        lambda: kernels.steps_wg([zeros(B, D)] * 2, [zeros(B, N), zeros(2, N)], KEPT),
        "torch.float32 [3, 5], got torch.float32 [2, 5]"),
}  # fmt: skip


@pytest.mark.parametrize(("run", "text"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes_that_do_not_fit(run: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        run()
    assert str(caught.value).startswith(f"a CPU kernel needs {text}")
    assert str(caught.value).endswith(" on cpu")


def test_a_cell_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.gru, "CELL", "rnn")
    with pytest.raises(ValueError, match=r"^there is no cell 'rnn': use lstm or gru$"):
        kernels.gru.layer_fp(gru_layer())


@pytest.mark.parametrize("given", [(0, 0), (2, 1), (1, 2)])
def test_steps_without_their_gradient(given: tuple[int, int]) -> None:
    xs, dys = [zeros(B, D)] * given[0], [zeros(B, N)] * given[1]
    with pytest.raises(ValueError) as caught:
        kernels.steps_wg(xs, dys, KEPT)
    assert str(caught.value) == (
        f"every step needs its x and its dy, got {given[0]} and {given[1]}"
    )
