"""``lstm_gates``: torch's cell behind the products, on every engine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import gradcheck

from opennmt_sd import ops


def test_the_gates_alone(any_engine: str, compare) -> None:
    """``lstm_gates`` is torch's cell behind the products."""
    g = torch.Generator().manual_seed(1)
    gates, c, dh, dc = (torch.randn(3, n, generator=g, dtype=torch.float64) for n in (20, 5, 5, 5))
    eye = torch.eye(20, dtype=torch.float64)

    def run_gates(cell) -> dict[str, Tensor]:
        leaves = gates.clone().requires_grad_(), c.clone().requires_grad_()
        h_new, c_new = cell(*leaves)
        torch.autograd.backward([h_new, c_new], [dh, dc])
        return {"h": h_new.detach(), "c": c_new.detach(), "dgates": leaves[0].grad,
                "dc": leaves[1].grad}  # fmt: skip

    nothing = torch.zeros(3, 5, dtype=torch.float64)
    want = run_gates(
        lambda gates, c: torch.lstm_cell(gates, (nothing, c), eye, eye.new_zeros(20, 5))
    )
    compare(run_gates(ops.lstm_gates), want)


def test_gradcheck_of_the_gates(any_engine: str) -> None:
    g = torch.Generator().manual_seed(1)
    gates, c = (
        torch.randn(3, n, generator=g, dtype=torch.float64, requires_grad=True) for n in (8, 2)
    )
    assert gradcheck(ops.lstm_gates, (gates, c))
