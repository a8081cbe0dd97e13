"""``lstm``: every engine computes what the naive one computes, and so does a loop of LSTM cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from opennmt_sd import ops

KINDS = ["structured", "fixed", "mask", "fixed mask"]

# name: T, B, H
SIZES = {
    "all ones": (1, 1, 1),
    "small": (4, 3, 3),
    "odd": (3, 2, 63),
    "one step": (1, 3, 63),
    "one sample": (5, 1, 63),
}
RATES = {"p=0": 0.0, "p=.5": 0.5, "p=.99": 0.99, "all dropped": "all", "no keep": None}
PACKED = {
    "equal lengths": [2, 2, 2],
    "falling": [4, 2, 2, 1],
    "all of length 1": [3],
    "one of length 1": [2, 1, 1],
    "a single row": [1],
}
INPUTS = ("gates_x", "weight_hh", "h", "c")
backwards = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def inputs(
    T: int, B: int, H: int, sizes: list[int] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)

    def make(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).mul(scale).to(dtype)

    rows = (sum(sizes),) if sizes else (T, B)
    return {"gates_x": make(*rows, 4 * H), "weight_hh": make(4 * H, H, scale=H**-0.5),
            "h": make(B, H), "c": make(B, H),
            "dy": make(*rows, H), "dh": make(B, H), "dc": make(B, H)}  # fmt: skip


def run(
    engine: str, keep: Any, given: dict[str, Tensor], sizes: list[int] | None = None,
    reverse: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Output, final states and every gradient."""
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    with ops.use(engine):
        y, h, c = ops.lstm(
            **leaves, keep=keep, reverse=reverse,
            batch_sizes=None if sizes is None else torch.tensor(sizes),
        )  # fmt: skip
    torch.autograd.backward([y, h, c], [given["dy"], given["dh"], given["dc"]])
    return {"y": y.detach(), "h_n": h.detach(), "c_n": c.detach(),
            **{f"d{n}": leaf.grad for n, leaf in leaves.items()}}  # fmt: skip


@backwards
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", RATES.values(), ids=RATES.keys())
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_equals_naive(
    engine: str, kind: str, p: Any, size: tuple, reverse: bool, draw, compare
) -> None:
    T, B, H = size
    # At .99 a kept unit is 100 times as large, step after step, and so is float32's rounding.
    dtype = torch.float64 if p == 0.99 else torch.float32
    given, keep = inputs(*size, dtype=dtype), draw(kind, p, T, B, H)
    want = run("naive", keep, given, reverse=reverse)
    compare(run(engine, keep, given, reverse=reverse), want)


@backwards
@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_a_real_layer(engine: str, kind: str | None, reverse: bool, draw, compare) -> None:
    given = inputs(3, 2, 650, dtype=torch.float32)
    keep = None if kind is None else draw(kind, 0.5, 3, 2, 650)
    want = run("naive", keep, given, reverse=reverse)
    compare(run(engine, keep, given, reverse=reverse), want)


@backwards
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.5, "all", None], ids=["p=.5", "all dropped", "no keep"])
@pytest.mark.parametrize("sizes", PACKED.values(), ids=PACKED.keys())
def test_packed_equals_naive(
    engine: str, kind: str, p: Any, sizes: list[int], reverse: bool, draw, compare
) -> None:
    T, B = len(sizes), sizes[0]
    given, keep = inputs(T, B, 63, sizes, torch.float32), draw(kind, p, T, B, 63)
    want = run("naive", keep, given, sizes, reverse)
    compare(run(engine, keep, given, sizes, reverse), want)


@backwards
@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("sizes", [None, [3, 2, 2, 1]], ids=["padded", "packed"])
def test_is_a_loop_of_cells(
    any_engine: str, kind: str | None, sizes: list[int] | None, reverse: bool, draw, compare
) -> None:
    """A reference of its own: torch's cell, one sample at a time, by absolute position.

    The cell reads h through weight_hh alone, so dropping what it is given is the whole of
    recurrent dropout; what it returns is undropped.
    """
    T, B, H = 4, 3, 6
    given = inputs(T, B, H, sizes, torch.float64)
    keep = None if kind is None else draw(kind, 0.5, T, B, H)
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    eye = torch.eye(4 * H, dtype=torch.float64)  # the gates' inputs are given: pass them through
    y: dict[tuple[int, int], Tensor] = {}
    finals = []
    for b in range(B):
        h, c = leaves["h"][b], leaves["c"][b]
        alive = [t for t in range(T) if sizes is None or b < sizes[t]]
        for t in reversed(alive) if reverse else alive:
            row = sum(sizes[:t]) + b if sizes else (t, b)
            read = h if keep is None else h * keep.mask().expand(T, B, H)[t, b] * 2.0
            h, c = torch.lstm_cell(
                leaves["gates_x"][row][None], (read[None], c[None]), eye, leaves["weight_hh"]
            )
            h, c = h[0], c[0]
            y[t, b] = h
        finals.append((h, c))
    out = torch.stack([y[key] for key in sorted(y)])
    out = out if sizes else out.unflatten(0, (T, B))
    h, c = (torch.stack(states) for states in zip(*finals))
    torch.autograd.backward([out, h, c], [given["dy"], given["dh"], given["dc"]])
    want = {"y": out.detach(), "h_n": h.detach(), "c_n": c.detach(),
            **{f"d{n}": leaf.grad for n, leaf in leaves.items()}}  # fmt: skip
    compare(run(any_engine, keep, given, sizes, reverse), want)


@backwards
@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("sizes", [None, [2, 2, 1]], ids=["padded", "packed"])
def test_gradcheck(engine: str, kind: str | None, sizes, reverse: bool, draw) -> None:
    given = inputs(3, 2, 2, sizes, torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 3, 2, 2)
    packed = None if sizes is None else torch.tensor(sizes)
    with ops.use(engine):
        assert gradcheck(
            lambda *leaves: ops.lstm(*leaves, keep, batch_sizes=packed, reverse=reverse),
            [given[n].requires_grad_() for n in INPUTS],
        )


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_bfloat16(engine: str, kind: str | None, draw) -> None:
    """Against the exact result of the same bfloat16 inputs."""
    given = inputs(10, 8, 63, dtype=torch.bfloat16)
    keep = None if kind is None else draw(kind, 0.5, 10, 8, 63)
    exact = run("naive", keep, {n: t.double() for n, t in given.items()})
    for name, got in run(engine, keep, given).items():
        assert got.dtype == torch.bfloat16, name
        # Ten steps feed each other their rounding (2**-9 each time, relative to the largest).
        error = (got - exact[name]).abs().max() / exact[name].abs().max()
        assert error < 10 * 2**-9, name


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_bfloat16_cells_are_kept_in_float32(engine: str, kind: str | None, draw) -> None:
    """Every gate open, c grows by 1 a step: a bfloat16 cell would stand still at 256."""
    T = 400
    keep = None if kind is None else draw(kind, 0.5, T, 1, 3)
    gates = torch.full((T, 1, 12), 20.0, dtype=torch.bfloat16)
    zeros = torch.zeros(1, 3, dtype=torch.bfloat16)
    with ops.use(engine):
        _, _, c = ops.lstm(gates, torch.zeros(12, 3, dtype=torch.bfloat16), zeros, zeros, keep)
    torch.testing.assert_close(c.float(), torch.full((1, 3), float(T)), rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("frozen", INPUTS)
def test_a_frozen_input_gets_no_gradient(
    any_engine: str, kind: str | None, frozen: str, draw, compare
) -> None:
    given = inputs(4, 3, 5, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)
    leaves = {n: given[n].clone().requires_grad_(n != frozen) for n in INPUTS}
    outputs = ops.lstm(**leaves, keep=keep)
    torch.autograd.backward(outputs, [given["dy"], given["dh"], given["dc"]])
    want = run("naive", keep, given)
    compare(
        {n: leaf.grad for n, leaf in leaves.items()},
        {n: None if n == frozen else want[f"d{n}"] for n in leaves},
    )


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("only", ["y", "h_n", "c_n"])
def test_a_gradient_of_one_output_only(
    engine: str, kind: str | None, only: str, draw, compare
) -> None:
    given = inputs(4, 3, 5, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)
    for name, cotangent in {"y": "dy", "h_n": "dh", "c_n": "dc"}.items():
        if name != only:
            given[cotangent] = torch.zeros_like(given[cotangent])
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    with ops.use(engine):
        outputs = dict(zip(("y", "h_n", "c_n"), ops.lstm(**leaves, keep=keep)))
    cotangent = given[{"y": "dy", "h_n": "dh", "c_n": "dc"}[only]]
    outputs[only].backward(cotangent)
    want = run("naive", keep, given)
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: want[f"d{n}"] for n in leaves})


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_retained_and_accumulated(any_engine: str, kind: str | None, draw, compare) -> None:
    given = inputs(4, 3, 5, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    outputs = ops.lstm(**leaves, keep=keep)
    cotangents = [given["dy"], given["dh"], given["dc"]]
    torch.autograd.backward(outputs, cotangents, retain_graph=True)
    torch.autograd.backward(outputs, cotangents)
    want = run("naive", keep, given)
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: 2 * want[f"d{n}"] for n in leaves})


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_memory_layouts(any_engine: str, kind: str | None, draw, compare) -> None:
    """Transposed and expanded tensors mean the same as contiguous ones."""
    given = inputs(4, 3, 5, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 5)
    odd = dict(given)
    odd["gates_x"] = given["gates_x"].transpose(0, 1).contiguous().transpose(0, 1)
    odd["weight_hh"] = given["weight_hh"].t().contiguous().t()
    for name in ("h", "c", "dh", "dc"):
        odd[name] = given[name][:1].expand(3, 5)
    odd["dy"] = given["dy"][..., :1].expand(4, 3, 5)
    leaves = {n: odd[n].detach().requires_grad_() for n in INPUTS}
    outputs = ops.lstm(**leaves, keep=keep)
    grads = torch.autograd.grad(outputs, list(leaves.values()), [odd["dy"], odd["dh"], odd["dc"]])
    want = run("naive", keep, {n: t.contiguous() for n, t in odd.items()})
    got = {n: t.detach() for n, t in zip(("y", "h_n", "c_n"), outputs)}
    compare({**got, **{f"d{n}": g for n, g in zip(leaves, grads)}}, want)


def test_the_given_state_is_not_written_to(any_engine: str, draw) -> None:
    given = inputs(4, 3, 5, dtype=torch.float64)
    before = {n: t.clone() for n, t in given.items()}
    run(any_engine, draw("structured", 0.5, 4, 3, 5), given)
    with torch.no_grad():
        ops.lstm(*(given[n] for n in INPUTS))
    for name, tensor in given.items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_is_never_read(any_engine: str, kind: str, draw, compare) -> None:
    """Nothing but the first step reads h_0, so what it drops there is never read."""
    given, keep = inputs(4, 3, 9, dtype=torch.float64), draw(kind, 0.5, 4, 3, 9)
    want = run("naive", keep, given)
    given["h"] = torch.where(keep[0].mask()[0].expand(3, 9), given["h"], torch.nan)
    compare(run(any_engine, keep, given), want)


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=str)
def test_what_is_kept_comes_through(
    any_engine: str, kind: str | None, poison: float, draw, compare
) -> None:
    given = inputs(4, 3, 9, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 9)
    unit = 4 if keep is None else int(keep.mask()[0].any(0).nonzero()[0])
    sample = 1 if keep is None else int(keep.mask().expand(-1, 3, 9)[0, :, unit].nonzero()[0])
    given["h"][sample, unit] = poison
    with torch.no_grad():
        leaves = [given[n] for n in INPUTS]
        y, _, c = ops.lstm(*leaves, keep)
        with ops.use("naive"):
            want_y, _, want_c = ops.lstm(*leaves, keep)
    compare({"y": y, "c": c}, {"y": want_y, "c": want_c})
    if poison is torch.nan:
        assert y[0, sample].isnan().all()
        others = [b for b in range(3) if b != sample]
        assert y[:, others].isfinite().all()


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_no_batch(any_engine: str, kind: str | None, draw) -> None:
    given = inputs(4, 0, 5, dtype=torch.float64)
    keep = None if kind is None else draw(kind, 0.5, 4, 0, 5)
    got = run(any_engine, keep, given)
    assert got["y"].shape == (4, 0, 5)
    assert got["h_n"].shape == got["c_n"].shape == (0, 5)
    assert torch.equal(got["dweight_hh"], torch.zeros(20, 5, dtype=torch.float64))


@pytest.mark.parametrize("kind", [*KINDS, None], ids=str)
def test_no_step_is_refused(any_engine: str, kind: str | None, draw) -> None:
    """As nn.LSTM refuses it."""
    given = inputs(0, 3, 5)
    keep = None if kind is None else draw(kind, 0.5, 0, 3, 5)
    with pytest.raises(ValueError, match=r"^gates_x must have at least one step, got \[0, 3, 20\]"):
        ops.lstm(*(given[n] for n in INPUTS), keep)


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
