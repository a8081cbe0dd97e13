"""The gates of the native cells where sigmoids saturate and numbers end."""

from __future__ import annotations

import pytest
import torch

from opennmt_sd import ops

pytestmark = pytest.mark.usefixtures("native")


EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 1e-4, 0.3, -0.3, 5.0, -5.0, 20.0, -20.0, 80.0, -80.0, 88.5,
            -88.5, 200.0, -200.0, 3e38, -3e38, torch.inf, -torch.inf, torch.nan]  # fmt: skip


@pytest.mark.parametrize("gate", ["i", "f", "g", "o"])
def test_the_gates_at_extremes(gate: str) -> None:
    """Relative errors near float32's own, and limits and NaN as they should be."""
    x = torch.tensor(EXTREMES)
    gates = torch.zeros(len(x), 4)
    gates[:, "ifgo".index(gate)] = x
    c = torch.full((len(x), 1), 0.25)
    with ops.use("naive"):
        want = ops.lstm_gates(gates.double(), c.double())
    with ops.use("cpu"):
        got = ops.lstm_gates(gates, c)
    for ours, expected in zip(got, want):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("gate", ["r", "z", "n", "q"])
def test_the_gates_of_a_gru_at_extremes(gate: str) -> None:
    """Likewise; q, which comes from the state alone, too."""
    x = torch.tensor(EXTREMES)
    of_x, of_h = torch.zeros(len(x), 3), torch.zeros(len(x), 3)
    (of_h[:, 2] if gate == "q" else of_x[:, "rzn".index(gate)]).copy_(x)
    h = torch.full((len(x), 1), 0.25)
    with ops.use("naive"):
        want = ops.gru_gates(of_x.double(), of_h.double(), h.double())
    with ops.use("cpu"):
        got = ops.gru_gates(of_x, of_h, h)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-37, equal_nan=True)
