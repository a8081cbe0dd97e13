"""``lstm_layer``, ``gru_layer``: every engine computes what the naive one does, and torch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import ops

KINDS = ["structured", "fixed", "mask", "fixed mask", "staggered", None]
SOME_PAIRS = [
    ("structured", "structured"),
    ("fixed", "mask"),
    ("mask", "fixed"),
    ("staggered", "staggered"),
    ("fixed mask", "fixed mask"),
    (None, None),
]  # of the input and of the state: each kind on each side, and none
some_pairs = pytest.mark.parametrize("kinds", SOME_PAIRS, ids=str)
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


def alternating(*choices: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return every combination of these, two or more, each with a direction: is it reversed?

    Directions alternate, so that each value of every choice is met in both.
    """
    numbered = product(*(enumerate(values) for values in choices))
    return [
        (*(value for _, value in row), sum(number for number, _ in row) % 2 > 0)
        for row in numbered
    ]  # fmt: skip


# How sets meet the products is one code for all cells.
PAIRS = [
    *(("LSTM", (x, h), reverse) for x, h, reverse in alternating(KINDS, KINDS)),
    *(("GRU", kinds, i % 2 > 0) for i, kinds in enumerate(SOME_PAIRS)),
]


@pytest.mark.parametrize(("cell", "kinds", "reverse"), PAIRS, ids=str, indirect=["cell"])
def test_every_pair_of_kinds(engine: str, cell, kinds, reverse: bool, draw_both, compare) -> None:
    sizes = [5, 3, 3, 1]
    given = cell.make(4, 5, 9, 17, sizes, torch.float32)
    keeps = draw_both(kinds, 0.5, 4, 5, 9, 17)
    want = cell.run("naive", keeps, given, sizes, reverse)
    compare(cell.run(engine, keeps, given, sizes, reverse), want)


@pytest.mark.parametrize(("size", "rate", "reverse"), alternating(SIZES, RATES))
def test_equals_naive(
    engine: str, cell, size: str, rate: str, reverse: bool, draw_both, compare
) -> None:
    size, p = SIZES[size], RATES[rate]
    # At .95 a kept unit is 20 times as large, step after step, and so is float32's rounding.
    given = cell.make(*size, dtype=torch.float64 if p == 0.95 else torch.float32)
    keeps = draw_both(("structured", "structured"), p, *size)
    want = cell.run("naive", keeps, given, reverse=reverse)
    compare(cell.run(engine, keeps, given, reverse=reverse), want)


PACKED_CHOICES = [
    (cell, *row)
    for cell, kinds in (("LSTM", SOME_PAIRS), ("GRU", SOME_PAIRS[:2]))
    for row in alternating(kinds, [0.5, "all"], PACKED)
]


@pytest.mark.parametrize(
    ("cell", "kinds", "p", "lengths", "reverse"), PACKED_CHOICES, ids=str, indirect=["cell"]
)
def test_packed_equals_naive(
    engine: str, cell, kinds, p: Any, lengths: str, reverse: bool, draw_both, compare
) -> None:
    sizes = PACKED[lengths]
    size = len(sizes), sizes[0], 9, 63
    given, keeps = cell.make(*size, sizes, torch.float32), draw_both(kinds, p, *size)
    want = cell.run("naive", keeps, given, sizes, reverse)
    compare(cell.run(engine, keeps, given, sizes, reverse), want)


@backwards
@pytest.mark.parametrize("sizes", [None, [3, 2, 2, 1]], ids=["padded", "packed"])
def test_is_a_layer_of_torch(any_engine: str, cell, sizes, reverse: bool, compare) -> None:
    """A reference of its own: torch's module, its other direction for reverse."""
    given = cell.make(4, 3, 6, 5, sizes, torch.float64)
    theirs = cell.stock(6, 5, bidirectional=True, dtype=torch.float64)
    suffix = "_l0_reverse" if reverse else "_l0"
    weights = {n: getattr(theirs, f"{n}{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih")}
    bias_hh = getattr(theirs, f"bias_hh{suffix}")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(given["bias" if name == "bias_ih" else name])
        bias_hh.zero_()
        if "bias_hn" in given:
            bias_hh[-5:] = given["bias_hn"]
    x, *states = (given[n].clone().requires_grad_() for n in ("x", *cell.states))
    packed = x
    if sizes:
        lengths = [sum(n > b for n in sizes) for b in range(3)]
        padded = pack_padded_sequence(torch.zeros(4, 3, 6, dtype=torch.float64), lengths)
        packed = padded._replace(data=x)
    hx = tuple(torch.stack([state, state]) for state in states)
    out, finals = theirs(packed, hx if len(hx) > 1 else hx[0])
    finals = finals if isinstance(finals, tuple) else (finals,)
    y = (out.data if sizes else out).chunk(2, -1)[reverse]
    outputs = [y, *(final[int(reverse)] for final in finals)]
    torch.autograd.backward(outputs, cell.cotangents(given))
    leaves = {"x": x, **dict(zip(cell.states, states)), "weight_ih": weights["weight_ih"],
              "bias": weights["bias_ih"], "weight_hh": weights["weight_hh"]}  # fmt: skip
    want = cell.results(outputs, leaves)
    if "bias_hn" in given:
        want["dbias_hn"] = bias_hh.grad[-5:]
    compare(cell.run(any_engine, (None, None), given, sizes, reverse), want)


@pytest.mark.parametrize(
    ("kinds", "sizes", "reverse"), alternating(SOME_PAIRS, [None, [2, 2, 1]]), ids=str
)
def test_gradcheck(engine: str, cell, kinds, sizes, reverse: bool, draw_both) -> None:
    given = cell.make(3, 2, 3, 2, sizes, torch.float64)
    keeps = draw_both(kinds, 0.5, 3, 2, 3, 2)
    with ops.use(engine):
        assert gradcheck(
            lambda *leaves: cell(dict(zip(cell.inputs, leaves)), keeps, sizes, reverse),
            [given[n].requires_grad_() for n in cell.inputs],
            fast_mode=True,  # along a direction through all of it, not entry by entry
        )


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, read: Tensor, w: dict[str, Tensor]
) -> tuple[Tensor, ...]:
    """Torch's cell reads h through weight_hh alone, so dropping what it is given is the whole of
    recurrent dropout."""
    nothing = torch.zeros_like(w["bias"])
    return torch.lstm_cell(x, (read, c), w["weight_ih"], w["weight_hh"], w["bias"], nothing)


def gru_step(x: Tensor, h: Tensor, read: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The update gate reads h as it is, beside the products: torch's cell cannot drop in these
    alone, so the step is written out."""
    of_x, of_h = F.linear(x, w["weight_ih"], w["bias"]), F.linear(read, w["weight_hh"])
    H = h.shape[1]
    r, z = torch.sigmoid(of_x + of_h).split(H, 1)[:2]
    n = torch.tanh(of_x[:, 2 * H :] + r * (of_h[:, 2 * H :] + w["bias_hn"]))
    return ((1 - z) * n + z * h,)


@pytest.mark.parametrize(
    ("kind", "sizes", "reverse"), alternating(KINDS, [None, [3, 2, 2, 1]]), ids=str
)
def test_is_a_loop_of_cells(
    any_engine: str, cell, kind: str | None, sizes: list[int] | None, reverse: bool, draw_both,
    compare,
) -> None:  # fmt: skip
    """A reference of its own: a cell, one sample at a time, by absolute position.

    Recurrent dropout is on what the product reads; what is returned is undropped.
    """
    T, B, D, H = 4, 3, 5, 6
    given = cell.make(T, B, D, H, sizes, torch.float64)
    keeps = draw_both((None, kind), 0.5, T, B, D, H)
    leaves = cell.leaves(given)
    step = {"lstm_layer": lstm_step, "gru_layer": gru_step}[cell.op.__name__]
    y: dict[tuple[int, int], Tensor] = {}
    finals = []
    for b in range(B):
        state = tuple(leaves[name][b, None] for name in cell.states)
        alive = [t for t in range(T) if sizes is None or b < sizes[t]]
        for t in reversed(alive) if reverse else alive:
            row = leaves["x"][sum(sizes[:t]) + b] if sizes else leaves["x"][t, b]
            h, read = state[0], state[0]
            if keeps[1] is not None:
                read = h * keeps[1].mask().expand(T, B, H)[t, b] * 2.0
            state = step(row[None], *state, read, leaves)
            y[t, b] = state[0][0]
        finals.append(state)
    out = torch.stack([y[key] for key in sorted(y)])
    out = out if sizes else out.unflatten(0, (T, B))
    outputs = [out, *(torch.cat(states) for states in zip(*finals))]
    torch.autograd.backward(outputs, cell.cotangents(given))
    compare(cell.run(any_engine, keeps, given, sizes, reverse), cell.results(outputs, leaves))


WEIGHTS = {"weight_ih", "weight_hh"}
SUBSETS = [
    *product(("LSTM", "GRU"), ({"x"}, WEIGHTS, {"weight_ih"}, {"weight_hh"}, {"bias"}, {"h"})),
    ("LSTM", {"c"}),
    ("LSTM", WEIGHTS | {"bias", "h", "c"}),
    ("LSTM", WEIGHTS | {"x", "h", "c"}),
    ("GRU", {"bias_hn"}),
    ("GRU", WEIGHTS | {"bias", "bias_hn", "h"}),
    ("GRU", WEIGHTS | {"x", "bias_hn", "h"}),
]


@some_pairs
@pytest.mark.parametrize(
    ("cell", "wanted"), SUBSETS, indirect=["cell"],
    ids=[f"{cell}, {' '.join(sorted(wanted))}" for cell, wanted in SUBSETS],
)  # fmt: skip
def test_only_what_is_asked_for(any_engine: str, cell, kinds, wanted, draw_both, compare) -> None:
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    want = cell.run("naive", keeps, given)
    want = {n: None if n[0] == "d" and n[1:] not in wanted else t for n, t in want.items()}
    without = set(cell.inputs) - wanted
    compare(cell.run(any_engine, keeps, given, without=without), want)


@some_pairs
@pytest.mark.parametrize(
    ("cell", "missing"),
    [("LSTM", ["bias"]), ("GRU", ["bias"]), ("GRU", ["bias_hn"]), ("GRU", ["bias", "bias_hn"])],
    ids=str, indirect=["cell"],
)  # fmt: skip
def test_without_bias(engine: str, cell, kinds, missing, draw_both, compare) -> None:
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps, results = draw_both(kinds, 0.5, 4, 3, 9, 5), []
    for name in (engine, "naive"):
        leaves = {n: leaf for n, leaf in cell.leaves(given).items() if n not in missing}
        with ops.use(name):
            outputs = cell({**leaves, **dict.fromkeys(missing)}, keeps)
        torch.autograd.backward(outputs, cell.cotangents(given))
        results.append(cell.results(outputs, leaves))
    compare(*results)


@some_pairs
@pytest.mark.parametrize(
    ("cell", "only"), [*product(["LSTM"], "yhc"), *product(["GRU"], "yh")], ids=str,
    indirect=["cell"],
)  # fmt: skip
def test_a_gradient_of_one_output_only(engine: str, cell, kinds, only, draw_both, compare) -> None:
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(kinds, 0.5, 4, 3, 9, 5)
    leaves, names = cell.leaves(given), ("y", *cell.states)
    with ops.use(engine):
        cell(leaves, keeps)[names.index(only)].backward(given[f"d{only}"])
    others = {f"d{n}": torch.zeros_like(given[f"d{n}"]) for n in names if n != only}
    want = cell.run("naive", keeps, given | others)
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: want[f"d{n}"] for n in leaves})


def test_retained_and_accumulated(any_engine: str, cell, draw_both, compare) -> None:
    given = cell.make(4, 3, 9, 5, dtype=torch.float64)
    keeps = draw_both(("structured", "structured"), 0.5, 4, 3, 9, 5)
    leaves = cell.leaves(given)
    outputs, cotangents = cell(leaves, keeps), cell.cotangents(given)
    torch.autograd.backward(outputs, cotangents, retain_graph=True)
    torch.autograd.backward(outputs, cotangents)
    want = cell.run("naive", keeps, given)
    compare({n: leaf.grad for n, leaf in leaves.items()}, {n: 2 * want[f"d{n}"] for n in leaves})
