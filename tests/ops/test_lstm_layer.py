"""``lstm_layer``: every engine computes what the naive one computes, and so does ``nn.LSTM``."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import KeepSets, ops

KINDS = ["structured", "fixed", "mask", "fixed mask", None]
# Of the input, and of the state.
every_pair = pytest.mark.parametrize("kinds", list(product(KINDS, KINDS)), ids=str)
# Each kind on each side, and none.
some_pairs = pytest.mark.parametrize(
    "kinds",
    [("structured", "structured"), ("fixed", "mask"), ("mask", "fixed"),
     ("fixed mask", "fixed mask"), (None, None)],
    ids=str,
)  # fmt: skip
backwards = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

# name: T, B, D, H
SIZES = {
    "all ones": (1, 1, 1, 1),
    "small": (4, 3, 3, 5),
    "odd": (3, 2, 63, 1),
    "wide state": (2, 3, 1, 63),
    "one step": (1, 3, 63, 7),
    "one sample": (5, 1, 7, 63),
    "a translator's width": (2, 3, 65, 130),
    "a language model's width": (3, 2, 65, 650),
}
RATES = {"p=0": 0.0, "p=.5": 0.5, "p=.95": 0.95, "all dropped": "all"}
PACKED = {
    "equal lengths": [2, 2, 2],
    "falling": [4, 2, 2, 1],
    "all of length 1": [3],
    "one of length 1": [2, 1, 1],
    "a single row": [1],
}
INPUTS = ("x", "weight_ih", "bias", "weight_hh", "h", "c")


def inputs(
    T: int, B: int, D: int, H: int, sizes: list[int] | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    g = torch.Generator().manual_seed(1)

    def make(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).mul(scale).to(dtype)

    rows = (sum(sizes),) if sizes else (T, B)
    return {"x": make(*rows, D), "weight_ih": make(4 * H, D, scale=D**-0.5), "bias": make(4 * H),
            "weight_hh": make(4 * H, H, scale=H**-0.5), "h": make(B, H), "c": make(B, H),
            "dy": make(*rows, H), "dh": make(B, H), "dc": make(B, H)}  # fmt: skip


def layer(
    leaves: dict[str, Tensor | None], keeps: tuple[Any, Any], sizes: list[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return ops.lstm_layer(
        **leaves, keep=keeps[0], state_keep=keeps[1], reverse=reverse,
        batch_sizes=None if sizes is None else torch.tensor(sizes),
    )  # fmt: skip


def run(
    engine: str, keeps: tuple[Any, Any], given: dict[str, Tensor], sizes: list[int] | None = None,
    reverse: bool = False, without: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Output, final states and every gradient; `without` names inputs that need none."""
    leaves = {n: given[n].clone().requires_grad_(n not in without) for n in INPUTS}
    with ops.use(engine):
        y, h, c = layer(leaves, keeps, sizes, reverse)
    torch.autograd.backward([y, h, c], [given["dy"], given["dh"], given["dc"]])
    return {"y": y.detach(), "h_n": h.detach(), "c_n": c.detach(),
            **{f"d{n}": leaf.grad for n, leaf in leaves.items()}}  # fmt: skip


@pytest.fixture
def draw_both(draw):
    """Keep sets of the input and of the state, each by its kind."""

    def draw_both(kinds, p, T: int, B: int, D: int, H: int) -> tuple[Any, Any]:
        return tuple(
            None if kind is None else draw(kind, p, T, B, width, seed)
            for seed, (kind, width) in enumerate(zip(kinds, (D, H)))
        )

    return draw_both


@backwards
@every_pair
def test_every_pair_of_kinds(engine: str, kinds, reverse: bool, draw_both, compare) -> None:
    sizes = [5, 3, 3, 1]
    given = inputs(4, 5, 9, 17, sizes, torch.float32)
    keeps = draw_both(kinds, 0.5, 4, 5, 9, 17)
    want = run("naive", keeps, given, sizes, reverse)
    compare(run(engine, keeps, given, sizes, reverse), want)


@backwards
@pytest.mark.parametrize("p", RATES.values(), ids=RATES.keys())
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_equals_naive(engine: str, p: Any, size, reverse: bool, draw_both, compare) -> None:
    # At .95 a kept unit is 20 times as large, step after step, and so is float32's rounding.
    given = inputs(*size, dtype=torch.float64 if p == 0.95 else torch.float32)
    keeps = draw_both(("structured", "structured"), p, *size)
    want = run("naive", keeps, given, reverse=reverse)
    compare(run(engine, keeps, given, reverse=reverse), want)


@backwards
@some_pairs
@pytest.mark.parametrize("p", [0.5, "all"], ids=["p=.5", "all dropped"])
@pytest.mark.parametrize("sizes", PACKED.values(), ids=PACKED.keys())
def test_packed_equals_naive(
    engine: str, kinds, p: Any, sizes: list[int], reverse: bool, draw_both, compare
) -> None:
    size = len(sizes), sizes[0], 9, 63
    given, keeps = inputs(*size, sizes, torch.float32), draw_both(kinds, p, *size)
    want = run("naive", keeps, given, sizes, reverse)
    compare(run(engine, keeps, given, sizes, reverse), want)


@backwards
@pytest.mark.parametrize("sizes", [None, [3, 2, 2, 1]], ids=["padded", "packed"])
def test_is_a_layer_of_torch(any_engine: str, sizes, reverse: bool, compare) -> None:
    """A reference of its own: an ``nn.LSTM``, its other direction for reverse."""
    given = inputs(4, 3, 6, 5, sizes, torch.float64)
    lstm = nn.LSTM(6, 5, bidirectional=True, dtype=torch.float64)
    suffix = "_l0_reverse" if reverse else "_l0"
    weights = {n: getattr(lstm, f"{n}{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih")}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(given["bias" if name == "bias_ih" else name])
        getattr(lstm, f"bias_hh{suffix}").zero_()
    x, h, c = (given[n].clone().requires_grad_() for n in ("x", "h", "c"))
    packed = x
    if sizes:
        lengths = [sum(n > b for n in sizes) for b in range(3)]
        padded = pack_padded_sequence(torch.zeros(4, 3, 6, dtype=torch.float64), lengths)
        packed = padded._replace(data=x)
    out, (h_n, c_n) = lstm(packed, (torch.stack([h, h]), torch.stack([c, c])))
    out = out.data if sizes else out
    y, h_n, c_n = (
        t.chunk(2, -1)[reverse] if t is out else t[int(reverse)] for t in (out, h_n, c_n)
    )
    torch.autograd.backward([y, h_n, c_n], [given["dy"], given["dh"], given["dc"]])
    want = {"y": y, "h_n": h_n, "c_n": c_n, "dx": x.grad, "dweight_ih": weights["weight_ih"].grad,
            "dbias": weights["bias_ih"].grad, "dweight_hh": weights["weight_hh"].grad,
            "dh": h.grad, "dc": c.grad}  # fmt: skip
    want = {n: t.detach() for n, t in want.items()}
    compare(run(any_engine, (None, None), given, sizes, reverse), want)


@backwards
@some_pairs
@pytest.mark.parametrize("sizes", [None, [2, 2, 1]], ids=["padded", "packed"])
def test_gradcheck(engine: str, kinds, sizes, reverse: bool, draw_both) -> None:
    given, keeps = inputs(3, 2, 3, 2, sizes, torch.float64), draw_both(kinds, 0.5, 3, 2, 3, 2)
    with ops.use(engine):
        assert gradcheck(
            lambda *leaves: layer(dict(zip(INPUTS, leaves)), keeps, sizes, reverse),
            [given[n].requires_grad_() for n in INPUTS],
        )


@backwards
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("sizes", [None, [3, 2, 2, 1]], ids=["padded", "packed"])
def test_is_a_loop_of_cells(
    any_engine: str, kind: str | None, sizes: list[int] | None, reverse: bool, draw_both, compare
) -> None:
    """A reference of its own: torch's cell, one sample at a time, by absolute position.

    The cell reads h through weight_hh alone, so dropping what it is given is the whole of
    recurrent dropout; what it returns is undropped.
    """
    T, B, D, H = 4, 3, 5, 6
    given = inputs(T, B, D, H, sizes, torch.float64)
    keeps = draw_both((None, kind), 0.5, T, B, D, H)
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    x, w_ih, bias, w_hh, h_0, c_0 = leaves.values()
    y: dict[tuple[int, int], Tensor] = {}
    finals = []
    for b in range(B):
        h, c = h_0[b], c_0[b]
        alive = [t for t in range(T) if sizes is None or b < sizes[t]]
        for t in reversed(alive) if reverse else alive:
            row = x[sum(sizes[:t]) + b] if sizes else x[t, b]
            read = h if keeps[1] is None else h * keeps[1].mask().expand(T, B, H)[t, b] * 2.0
            h, c = torch.lstm_cell(
                row[None], (read[None], c[None]), w_ih, w_hh, bias, torch.zeros_like(bias)
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
    compare(run(any_engine, keeps, given, sizes, reverse), want)


SUBSETS = {
    "x": {"x"},
    "the weights": {"weight_ih", "weight_hh"},
    "weight_ih": {"weight_ih"},
    "weight_hh": {"weight_hh"},
    "the bias": {"bias"},
    "h": {"h"},
    "c": {"c"},
    "all but x": set(INPUTS) - {"x"},
    "all but the bias": set(INPUTS) - {"bias"},
}


@some_pairs
@pytest.mark.parametrize("wanted", SUBSETS.values(), ids=SUBSETS.keys())
def test_only_what_is_asked_for(any_engine: str, kinds, wanted, draw_both, compare) -> None:
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    want = run("naive", keeps, given)
    want = {n: None if n[0] == "d" and n[1:] not in wanted else t for n, t in want.items()}
    without = tuple(set(INPUTS) - wanted)
    compare(run(any_engine, keeps, given, without=without), want)


@some_pairs
def test_without_bias(engine: str, kinds, draw_both, compare) -> None:
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps, results = draw_both(kinds, 0.5, 4, 3, 9, 5), []
    for name in (engine, "naive"):
        leaves = {n: given[n].clone().requires_grad_() for n in INPUTS if n != "bias"}
        with ops.use(name):
            outputs = layer({**leaves, "bias": None}, keeps)
        torch.autograd.backward(outputs, [given["dy"], given["dh"], given["dc"]])
        results.append({n: leaf.grad for n, leaf in leaves.items()} | {"y": outputs[0].detach()})
    compare(*results)


@some_pairs
@pytest.mark.parametrize("only", [0, 1, 2], ids=["y", "h_n", "c_n"])
def test_a_gradient_of_one_output_only(engine: str, kinds, only, draw_both, compare) -> None:
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    cotangents = ["dy", "dh", "dc"]
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    with ops.use(engine):
        layer(leaves, keeps)[only].backward(given[cotangents.pop(only)])
    want = run("naive", keeps, given | {n: torch.zeros_like(given[n]) for n in cotangents})
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: want[f"d{n}"] for n in leaves})


def test_retained_and_accumulated(any_engine: str, draw_both, compare) -> None:
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(("structured", "structured"), 0.5, 4, 3, 9, 5)
    leaves = {n: given[n].clone().requires_grad_() for n in INPUTS}
    outputs, cotangents = layer(leaves, keeps), [given["dy"], given["dh"], given["dc"]]
    torch.autograd.backward(outputs, cotangents, retain_graph=True)
    torch.autograd.backward(outputs, cotangents)
    want = run("naive", keeps, given)
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: 2 * want[f"d{n}"] for n in leaves})


@some_pairs
def test_memory_layouts(any_engine: str, kinds, draw_both, compare) -> None:
    """Transposed and expanded tensors mean the same as contiguous ones, and are not written to."""
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    odd = dict(given)
    odd["x"] = given["x"].transpose(0, 1).contiguous().transpose(0, 1)
    for name in ("weight_ih", "weight_hh"):
        odd[name] = given[name].t().contiguous().t()
    odd["bias"] = given["bias"][:1].expand(20)
    for name in ("h", "c", "dh", "dc"):
        odd[name] = given[name][:1].expand(3, 5)
    odd["dy"] = given["dy"][..., :1].expand(4, 3, 5)
    assert not any(t.is_contiguous() for t in odd.values())
    before = {n: t.contiguous().clone() for n, t in odd.items()}
    leaves = {n: odd[n].detach().requires_grad_() for n in INPUTS}
    outputs = layer(leaves, keeps)
    grads = torch.autograd.grad(outputs, list(leaves.values()), [odd["dy"], odd["dh"], odd["dc"]])
    got = {n: t.detach() for n, t in zip(("y", "h_n", "c_n"), outputs)}
    want = run("naive", keeps, before)
    compare({**got, **{f"d{n}": g for n, g in zip(leaves, grads)}}, want)
    for name, tensor in odd.items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=str)
@some_pairs
def test_what_is_dropped_is_never_read(any_engine, kinds, poison, draw_both, compare) -> None:
    given, keeps = inputs(4, 3, 9, 17, dtype=torch.float64), draw_both(kinds, 0.5, 4, 3, 9, 17)
    want = run("naive", keeps, given)
    for name, keep in zip(("x", "h"), keeps):
        if keep is not None:
            kept = keep.mask().expand(4, 3, -1)
            given[name] = torch.where(kept if name == "x" else kept[0], given[name], poison)
    compare(run(any_engine, keeps, given), want)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf], ids=str)
@some_pairs
def test_what_is_kept_comes_through(any_engine, kinds, poison, draw_both, compare) -> None:
    """In its own sample, from its step on, and forward as backward; nothing hangs."""
    given, keeps = inputs(4, 3, 9, 17, dtype=torch.float64), draw_both(kinds, 0.5, 4, 3, 9, 17)
    mask = torch.ones(4, 3, 9, dtype=bool) if keeps[0] is None else keeps[0].mask().expand(4, 3, 9)
    unit = int(mask[1, 2].nonzero()[0])
    given["x"][1, 2, unit] = poison
    got, want = run(any_engine, keeps, given), run("naive", keeps, given)
    # Not the weights' gradients: there the naive product has 0 * NaN for what is dropped.
    same = "y", "h_n", "c_n", "dx", "dbias", "dh", "dc"
    compare({n: got[n] for n in same}, {n: want[n] for n in same})
    others = got["y"].clone()
    others[1:, 2] = 0
    assert others.isfinite().all()
    assert got["dweight_ih"][:, unit].isnan().any()
    if poison is torch.nan:
        assert got["y"][1, 2].isnan().all()
        assert got["h_n"][2].isnan().all()


@some_pairs
def test_bfloat16(engine: str, kinds, draw_both) -> None:
    """Against the exact result of the same bfloat16 inputs."""
    given, keeps = inputs(6, 8, 33, 63, dtype=torch.bfloat16), draw_both(kinds, 0.5, 6, 8, 33, 63)
    exact = run("naive", keeps, {n: t.double() for n, t in given.items()})
    for name, got in run(engine, keeps, given).items():
        assert got.dtype == torch.bfloat16, name
        # Six steps feed each other their rounding (2**-9 each time, relative to the largest).
        error = (got - exact[name]).abs().max() / exact[name].abs().max()
        assert error < 8 * 2**-9, name


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bfloat16_cells_are_kept_in_float32(engine: str, kind: str | None, draw) -> None:
    """Every gate open, c grows by 1 a step: a bfloat16 cell would stand still at 256."""
    T = 400
    keep = None if kind is None else draw(kind, 0.5, T, 1, 3)
    x, zeros = (torch.zeros(*shape, 3, dtype=torch.bfloat16) for shape in ((T, 1), (1,)))
    weight, bias = torch.zeros(12, 3, dtype=torch.bfloat16), torch.full((12,), 20.0).bfloat16()
    with ops.use(engine):
        _, _, c = ops.lstm_layer(x, None, weight, bias, weight, zeros, zeros, keep)
    torch.testing.assert_close(c.float(), torch.full((1, 3), float(T)), rtol=2**-8, atol=0)


def test_the_recurrence_alone_is_deprecated(any_engine: str, draw_both, compare) -> None:
    """``ops.lstm`` still gives what it gave, for gates that are there already."""
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both((None, "structured"), 0.5, 4, 3, 9, 5)
    want = dict(zip("yhc", layer({n: given[n] for n in INPUTS}, keeps)))
    gates = ops.masked_linear(given["x"], None, given["weight_ih"], given["bias"])
    with pytest.warns(DeprecationWarning, match=r"ends with version 0.4"):
        got = ops.lstm(gates, given["weight_hh"], given["h"], given["c"], keeps[1])
    compare(dict(zip("yhc", got)), want)


@some_pairs
def test_no_batch(any_engine: str, kinds, draw_both) -> None:
    given = inputs(4, 0, 9, 5, dtype=torch.float64)
    got = run(any_engine, draw_both(kinds, 0.5, 4, 0, 9, 5), given)
    assert got["y"].shape == (4, 0, 5)
    assert got["h_n"].shape == got["c_n"].shape == (0, 5)
    for name in ("weight_ih", "bias", "weight_hh"):
        assert torch.equal(got[f"d{name}"], torch.zeros_like(given[name])), name


def test_no_step_is_refused(any_engine: str) -> None:
    """As nn.LSTM refuses it."""
    given = inputs(0, 3, 9, 5)
    with pytest.raises(ValueError, match=r"^x must have at least one step, got \[0, 3, 9\]$"):
        layer({n: given[n] for n in INPUTS}, (None, None))


def test_padding_of_sets_is_never_read(any_engine: str, draw_both, compare) -> None:
    given = inputs(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(("structured", "fixed"), 0.5, 4, 3, 9, 5)

    def garbage(keep: KeepSets) -> KeepSets:
        padding = torch.arange(keep.width) >= keep.count[:, None]
        return KeepSets(torch.where(padding, 2**31 - 1, keep.idx).int(), keep.count, keep.scale)

    spoilt = tuple(garbage(keep) for keep in keeps)
    compare(run(any_engine, spoilt, given), run("naive", keeps, given))
