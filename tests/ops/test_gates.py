"""``lstm_gates``, ``gru_gates``: torch's cells behind the products, on every engine."""

from __future__ import annotations

import pytest
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


def test_the_gates_of_a_gru(any_engine: str, compare) -> None:
    """The products go through an eye; of what comes in, each part has its own gradient."""
    g = torch.Generator().manual_seed(1)
    of_x, of_h, h, dh = (
        torch.randn(3, n, generator=g, dtype=torch.float64) for n in (15, 15, 5, 5)
    )

    def run(step) -> dict[str, Tensor]:
        leaves = [t.clone().requires_grad_() for t in (of_x, of_h, h)]
        new = step(*leaves)
        new.backward(dh)
        return {"h": new.detach(), **dict(zip(("dx", "dh", "dstate"), (t.grad for t in leaves)))}

    def stock(of_x: Tensor, of_h: Tensor, h: Tensor) -> Tensor:
        """A sample at a time, as the state's part is a bias to torch."""
        eye = torch.eye(15, dtype=torch.float64)
        rows = zip(of_x, of_h, h)
        return torch.cat(
            [torch.gru_cell(x[None], s[None], eye, eye.new_zeros(15, 5), torch.zeros_like(b), b)
             for x, b, s in rows]
        )  # fmt: skip

    compare(run(ops.gru_gates), run(stock))


@pytest.mark.parametrize(
    ("gates", "widths"), [(ops.lstm_gates, (8, 2)), (ops.gru_gates, (6, 6, 2))], ids=["LSTM", "GRU"]
)
def test_gradcheck_of_the_gates(any_engine: str, gates, widths: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    given = [
        torch.randn(3, n, generator=g, dtype=torch.float64, requires_grad=True) for n in widths
    ]
    assert gradcheck(gates, given)


def test_what_is_added_to_the_gates(any_engine: str, compare) -> None:
    """It is as if it had been added before: in value, and each part gets the sum's gradient."""
    g = torch.Generator().manual_seed(1)
    gates, added, c, dh, dc = (
        torch.randn(3, n, generator=g, dtype=torch.float64) for n in (20, 20, 5, 5, 5)
    )

    def run(*parts: Tensor, apart: bool) -> dict[str, Tensor]:
        leaves = [t.clone().requires_grad_() for t in (*parts, c)]
        *summands, state = leaves
        h, c_new = ops.lstm_gates(*leaves) if not apart else ops.lstm_gates(
            summands[0], state, summands[1]
        )  # fmt: skip
        torch.autograd.backward([h, c_new], [dh, dc])
        named = zip(("dgates", "dadded") if apart else ("dgates",), summands)
        return {"h": h.detach(), "c": c_new.detach(), "dc": state.grad,
                **{name: t.grad for name, t in named}}  # fmt: skip

    want = run(gates + added, apart=False)
    compare(run(gates, added, apart=True), want | {"dadded": want["dgates"]})


@pytest.mark.parametrize(
    ("added", "got"),
    [
        (torch.zeros(3, 19), "torch.float32 [3, 19]"),
        (torch.zeros(20), "torch.float32 [20]"),
        (torch.zeros(3, 20).double(), "torch.float64 [3, 20]"),
    ],
    ids=["width", "rows", "dtype"],
)
def test_what_is_added_must_fit(added: Tensor, got: str) -> None:
    with pytest.raises(ValueError, match="added must be") as error:
        ops.lstm_gates(torch.zeros(3, 20), torch.zeros(3, 5), added)
    assert str(error.value) == f"added must be torch.float32 [3, 20], as gates are; got {got}"


def test_what_is_added_is_on_the_same_device() -> None:
    with pytest.raises(ValueError, match="added"):
        ops.lstm_gates(torch.zeros(3, 20), torch.zeros(3, 5), torch.zeros(3, 20, device="meta"))
