"""Every op on a GPU: what the naive engine computes on the CPU, in float64, on the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import DropoutPattern, KeepSets, ops
from opennmt_sd.dropout import Keep, KeepMask
from opennmt_sd.dropout.staggered import StaggeredSets

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CASES = {
    "Case III": ("structured", "random"),
    "Case IV": ("structured", "fixed"),
    "Case I": ("random", "random"),
    "Case II": ("random", "fixed"),
    "staggered": ("structured", "random"),
}
pytestmark = pytest.mark.usefixtures("settled")
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))

Leaves = dict[str, Tensor]


def draw(case: str | None, p: float | str, T: int, B: int, D: int, seed: int = 0) -> Keep | None:
    """Draw what is kept; ``p="all"``: nothing is."""
    if case is None:
        return None
    space, time = CASES[case]
    pattern = DropoutPattern(0.5 if p == "all" else float(p), space, time)
    if case == "staggered":
        sets = draw("Case III", p, StaggeredSets.count(T, B), B, D, seed)
        return StaggeredSets.of(sets, T, B)
    keep = pattern.draw(T, B, D, torch.Generator().manual_seed(seed))
    if p != "all":
        return keep
    if isinstance(keep, KeepSets):
        return KeepSets(keep.idx, torch.zeros_like(keep.count), 2.0)
    return type(keep)(torch.zeros_like(keep.mask()), 2.0)


def numbers(dtype: torch.dtype, **shapes: tuple[int, ...]) -> Leaves:
    """Draw tensors by name; of a name that begins with ``weight`` so that products keep their
    size."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, shape in shapes.items():
        scale = shape[-1] ** -0.5 if name.startswith("weight") else 1.0
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        made[name] = x.to(dtype)
    return made


def results(
    op: Callable[[Leaves], Any], given: Leaves, gradients: Leaves, device: torch.device,
    dtype: torch.dtype,
) -> Leaves:  # fmt: skip
    """Run an op forward and backward: every output with a gradient, and every input's."""
    leaves = {n: x.to(device, dtype, copy=True).requires_grad_() for n, x in given.items()}
    out = op(leaves)
    outputs = dict(zip(gradients, out if isinstance(out, tuple) else (out,)))
    backwards = [g.to(device, dtype) if outputs[n].dim() else None for n, g in gradients.items()]
    torch.autograd.backward(list(outputs.values()), backwards)
    grads = {f"d{n}": x.grad for n, x in leaves.items() if x.grad is not None}
    return {n: x.detach() for n, x in outputs.items()} | grads


@pytest.fixture
def same(device: torch.device, engine: str, close: Callable[..., None]) -> Callable[..., None]:
    """``same(op, given, gradients, dtype)``: on the device what naive gives on the CPU; and twice
    the same bits."""

    def same(
        op: Callable[[Leaves], Any], given: Leaves, gradients: Leaves, dtype: torch.dtype
    ) -> None:
        with ops.use(engine):
            got, again = (results(op, given, gradients, device, dtype) for _ in range(2))
        with ops.use("naive"):
            want = results(op, given, gradients, torch.device("cpu"), torch.float64)
        close(got, want, dtype)
        assert [n for n in got if not torch.equal(got[n], again[n])] == []

    return same


# ---------------------------------------------------------------- recurrent layers

# lengths, T, B, D, H
LAYERS = {
    "padded": (None, 4, 5, 9, 17),
    "packed": ([5, 3, 3, 1], 4, 5, 9, 17),
    "lengths of 1": ([5], 1, 5, 9, 17),
    "a unit": (None, 3, 1, 1, 1),
    "63 units": (None, 3, 3, 7, 63),
    "a translator's": ([4, 4, 2], 3, 4, 64, 130),
    "a language model's": (None, 35, 20, 650, 650),
    "a tagger's": ([10] * 5 + [7] * 10 + [2] * 5, 20, 10, 130, 200),
    "many rows": (None, 5, 128, 32, 64),
}
GATES = {"lstm": 4, "gru": 3}


def layer(
    same: Callable[..., None], cell: str, shape: str, cases: tuple[str | None, str | None],
    p: float | str, dtype: torch.dtype, *, reverse: bool = False,
) -> None:  # fmt: skip
    sizes, T, B, D, H = LAYERS[shape]
    N, rows = GATES[cell] * H, (sum(sizes),) if sizes else (T, B)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (*rows, D), "weight_ih": (N, D), "bias": (N,), "weight_hh": (N, H), "h": (B, H),
        **({"c": (B, H)} if cell == "lstm" else {"bias_hn": (H,)}),
    }  # fmt: skip
    states = ("h", "c") if cell == "lstm" else ("h",)
    given = numbers(dtype, **shapes)
    gradients = numbers(dtype, y=(*rows, H), **{f"{state}_n": (B, H) for state in states})
    keep, state_keep = (
        draw(case, p, T, B, width, seed) for seed, (case, width) in enumerate(zip(cases, (D, H)))
    )
    op = getattr(ops, f"{cell}_layer")
    more = {"keep": keep, "state_keep": state_keep, "reverse": reverse,
            "batch_sizes": None if sizes is None else torch.tensor(sizes)}  # fmt: skip
    same(lambda leaves: op(**leaves, **more), given, gradients, dtype)


PAIRS = [
    ("Case III", "Case III"), (None, "Case III"), ("Case III", None), ("Case IV", "Case IV"),
    ("Case I", "Case I"), ("Case II", "Case II"), ("Case IV", "Case I"), (None, None),
    ("staggered", "Case III"), ("staggered", "staggered"),
]  # fmt: skip
cells = pytest.mark.parametrize("cell", GATES)


@dtypes
@cells
@pytest.mark.parametrize("cases", PAIRS, ids=lambda pair: " + ".join(map(str, pair)))
@pytest.mark.parametrize("shape", ["padded", "packed"])
def test_a_layer(same, cell: str, shape: str, cases, dtype: torch.dtype) -> None:
    layer(same, cell, shape, cases, 0.5, dtype, reverse=PAIRS.index(cases) % 2 > 0)


@cells
@pytest.mark.parametrize("p", [0.0, 0.5, "all"], ids=["p=0", "p=.5", "all dropped"])
@pytest.mark.parametrize("shape", LAYERS)
def test_sizes_and_rates(same, cell: str, shape: str, p) -> None:
    reverse = shape in ("packed", "63 units", "a tagger's")
    layer(same, cell, shape, ("Case III", "Case III"), p, torch.float32, reverse=reverse)


@cells
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=["float16", "bfloat16"])
def test_a_wide_layer_in_half_precision(same, cell: str, dtype: torch.dtype) -> None:
    layer(same, cell, "many rows", ("Case III", "Case III"), 0.5, dtype)


def test_a_layer_of_which_one_gradient_is_asked(device, close) -> None:
    """What is not asked for is not computed, and nothing else changes."""
    given = numbers(torch.float32, x=(4, 3, 9), weight_ih=(68, 9), bias=(68,), weight_hh=(68, 17),
                    h=(3, 17), c=(3, 17))  # fmt: skip
    keep = draw("Case III", 0.5, 4, 3, 17)

    def run(where: torch.device, dtype: torch.dtype, wanted: str) -> Leaves:
        leaves = {n: x.to(where, dtype, copy=True) for n, x in given.items()}
        leaves[wanted].requires_grad_()
        y, *_ = ops.lstm_layer(**leaves, keep=None, state_keep=keep)
        y.sum().backward()
        assert [n for n, x in leaves.items() if x.grad is not None] == [wanted]
        return {wanted: leaves[wanted].grad}

    for wanted in given:
        with ops.use("naive"):
            want = run(torch.device("cpu"), torch.float64, wanted)
        close(run(device, torch.float32, wanted), want, torch.float32)


# ---------------------------------------------------------------- draws

PATTERNS = {
    "sets": DropoutPattern(0.5),
    "masks": DropoutPattern(0.65, "random"),
    "exact sets": DropoutPattern(0.3, count="exact"),
    "one exact set": DropoutPattern(0.5, time="fixed", count="exact"),
}


@dtypes
@pytest.mark.parametrize("D", [1, 65, 1500])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_mask_drawn_on_the_card_has_the_bits_of_the_cpu(
    device, name: str, D: int, dtype: torch.dtype
) -> None:
    def drawn() -> KeepMask:
        return PATTERNS[name].draw_mask(35, 4, D, torch.Generator().manual_seed(1))

    keep, want = drawn(), drawn()
    factors = keep.factors(torch.ones(1, dtype=dtype, device=device)).cpu()
    assert torch.equal(~keep.dropped(device).cpu(), want.narrow())
    assert torch.equal(factors, torch.where(want.narrow(), want.scale, 0.0).to(dtype))


# ---------------------------------------------------------------- gates


@dtypes
def test_gates(same, dtype: torch.dtype) -> None:
    n, H = 5, 33
    gates, state = (n, 4 * H), (n, H)
    same(lambda g: ops.lstm_gates(g["gates"], g["c"]), numbers(dtype, gates=gates, c=state),
         numbers(dtype, h=state, c_n=state), dtype)  # fmt: skip
    same(lambda g: ops.lstm_gates(g["gates"], g["c"], g["added"]),
         numbers(dtype, gates=gates, c=state, added=gates),
         numbers(dtype, h=state, c_n=state), dtype)  # fmt: skip
    gates = (n, 3 * H)
    same(lambda g: ops.gru_gates(**g), numbers(dtype, gates_x=gates, gates_h=gates, h=state),
         numbers(dtype, h_n=state), dtype)  # fmt: skip


# ---------------------------------------------------------------- products


@dtypes
@pytest.mark.parametrize("case", [*CASES, None])
@pytest.mark.parametrize("sizes", [None, [4, 3, 1]], ids=["padded", "packed"])
@pytest.mark.parametrize("p", [0.0, 0.5, "all"], ids=["p=0", "p=.5", "all dropped"])
def test_a_masked_linear_layer(same, sizes, case: str | None, p, dtype: torch.dtype) -> None:
    rows = (sum(sizes),) if sizes else (3, 4)
    keep, batch_sizes = draw(case, p, 3, 4, 65), None if sizes is None else torch.tensor(sizes)
    same(
        lambda g: ops.masked_linear(g["x"], keep, g["weight"], g["bias"], batch_sizes=batch_sizes),
        numbers(dtype, x=(*rows, 65), weight=(33, 65), bias=(33,)), numbers(dtype, y=(*rows, 33)),
        dtype,
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [None, [64, 64, 50]], ids=["padded", "packed"])
def test_staggered_sets_are_more_than_steps(same, sizes) -> None:
    """Of 64 samples a set serves fewer rows than a step has."""
    rows = (sum(sizes),) if sizes else (3, 64)
    keep, batch_sizes = draw("staggered", 0.5, 3, 64, 65), sizes and torch.tensor(sizes)
    assert isinstance(keep, StaggeredSets)
    assert keep.sets.steps == 8
    same(
        lambda g: ops.masked_linear(g["x"], keep, g["weight"], g["bias"], batch_sizes=batch_sizes),
        numbers(torch.float32, x=(*rows, 65), weight=(33, 65), bias=(33,)),
        numbers(torch.float32, y=(*rows, 33)), torch.float32,
    )  # fmt: skip
    targets = torch.randint(101, rows, generator=torch.Generator().manual_seed(3))

    def loss(g: Leaves) -> Tensor:
        nll, _ = ops.projected_nll(
            g["x"], keep, g["weight"], g["bias"], targets.to(g["x"].device), factor=0.25,
            batch_sizes=batch_sizes,
        )  # fmt: skip
        return nll

    same(loss, numbers(torch.float32, x=(*rows, 65), weight=(101, 65), bias=(101,)),
         {"loss": torch.ones(())}, torch.float32)  # fmt: skip


@dtypes
@pytest.mark.parametrize("case", [*CASES, None])
@pytest.mark.parametrize("sizes", [None, [4, 3, 1]], ids=["padded", "packed"])
def test_the_loss_of_a_projection(same, device, sizes, case, dtype: torch.dtype) -> None:
    rows, V = (sum(sizes),) if sizes else (3, 4), 101
    keep, batch_sizes = draw(case, 0.5, 3, 4, 65), None if sizes is None else torch.tensor(sizes)
    targets = torch.randint(V, rows, generator=torch.Generator().manual_seed(3))

    def loss(g: Leaves) -> Tensor:
        nll, _ = ops.projected_nll(
            g["x"], keep, g["weight"], g["bias"], targets.to(g["x"].device), factor=0.25,
            batch_sizes=batch_sizes, label_smoothing=0.1,
        )  # fmt: skip
        return nll

    same(loss, numbers(dtype, x=(*rows, 65), weight=(V, 65), bias=(V,)),
         {"loss": torch.ones(())}, dtype)  # fmt: skip


def test_hits_are_counted(device: torch.device) -> None:
    given = numbers(torch.float32, x=(3, 4, 65), weight=(101, 65), bias=(101,))
    targets = (given["x"] @ given["weight"].t() + given["bias"]).argmax(-1)
    targets[0] = (targets[0] + 1) % 101
    on = [x.to(device) for x in (given["x"], given["weight"], given["bias"], targets)]
    _, hits = ops.projected_nll(on[0], None, *on[1:])
    assert int(hits) == 8


# ---------------------------------------------------------------- a step at a time


@dtypes
@pytest.mark.parametrize("case", [*CASES, None])
def test_a_masked_linear_layer_step_by_step(same, case: str | None, dtype: torch.dtype) -> None:
    """Sequences end, as in packed rows."""
    keep, sizes = draw(case, 0.5, 3, 4, 65), [4, 3, 1]

    def steps(g: Leaves) -> Tensor:
        handle = ops.prepare(g["weight"], g["bias"])
        rows = g["x"].split(sizes)
        return torch.cat([ops.masked_linear_step(handle, x, keep, t) for t, x in enumerate(rows)])

    same(steps, numbers(dtype, x=(8, 65), weight=(33, 65), bias=(33,)), numbers(dtype, y=(8, 33)),
         dtype)  # fmt: skip


@dtypes
@pytest.mark.parametrize("lengths", [None, [1, 7, 4, 9]], ids=["all", "lengths"])
def test_attention_step_by_step(same, lengths, dtype: torch.dtype) -> None:
    sizes = [4, 3, 1]

    def steps(g: Leaves) -> tuple[Tensor, Tensor]:
        known = None if lengths is None else torch.tensor(lengths)
        handle = ops.prepare_memory(g["weight_memory"], known)
        found = [ops.attend_step(handle, query) for query in g["query"].split(sizes)]
        contexts, weights = zip(*found)
        return torch.cat(contexts), torch.cat(weights)

    same(steps, numbers(dtype, weight_memory=(4, 7, 33), query=(8, 33)),
         numbers(dtype, context=(8, 33), weights=(8, 7)), dtype)  # fmt: skip
