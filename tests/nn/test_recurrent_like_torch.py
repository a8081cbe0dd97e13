"""``StructuredLSTM``, ``StructuredGRU`` with nothing to drop: they compute what torch's do."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from opennmt_sd import DropoutPattern, ops

T, B, D, H = 5, 3, 4, 6
LENGTHS = {"packed": [5, 3, 1], "packed unsorted": [2, 5, 1]}
LAYOUTS = ["time first", "batch first", "unbatched", "unbatched, batch first", *LENGTHS]

# (layout, arguments, whether a state is given): not every combination, but every pair of two
# values; the last test of this file counts.
CHOICES: list[tuple[str, dict[str, Any], bool]] = []
for number, name in enumerate(LAYOUTS):
    for layers, both in itertools.product((1, 2), (False, True)):
        bias = (layers == 2) ^ both ^ (number % 2 == 1)
        state = (layers == 2) ^ (number in (2, 3))
        arguments = {"num_layers": layers, "bidirectional": both, "bias": bias}
        CHOICES.append((name, arguments, state))

every_choice = pytest.mark.parametrize(("layout", "config", "state"), CHOICES, ids=str)


def pair(kind, layout: str, config: dict[str, Any], **dropout: Any) -> tuple[Any, Any]:
    """torch's and ours, of the same weights."""
    config = {**config, "batch_first": layout.endswith("batch first")}
    theirs, ours = kind.stock(D, H, **config), kind.ours(D, H, **config, **dropout)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def example(kind, layout: str, config: dict[str, Any], state: bool) -> tuple[Any, ...]:
    """Leaves (data, then the state if given) and a function that makes the arguments of them."""
    rows = config["num_layers"] * (1 + config["bidirectional"])
    shape, hidden = {
        "batch first": ((B, T, D), (rows, B, H)),
        "unbatched": ((T, D), (rows, H)),
        "unbatched, batch first": ((T, D), (rows, H)),
    }.get(layout, ((T, B, D), (rows, B, H)))
    data = [torch.randn(shape), *(torch.randn(hidden) for _ in kind.states if state)]

    def arguments(leaves: list[Tensor]) -> tuple[Any, ...]:
        x: Any = leaves[0]
        if layout in LENGTHS:
            lengths = torch.tensor(LENGTHS[layout])
            x = pack_padded_sequence(x, lengths, enforce_sorted=layout == "packed")
        return (x, kind.hx(leaves[1:])) if state else (x,)

    return data, arguments


def run(kind, layer: nn.RNNBase, data: list[Tensor], arguments: Any) -> dict[str, Any]:
    """Output, final states and every gradient."""
    leaves = [t.clone().requires_grad_() for t in data]
    y, hx = layer(*arguments(leaves))
    rows, finals = y.data if isinstance(y, PackedSequence) else y, kind.parts(hx)
    g = torch.Generator().manual_seed(2)
    cotangents = [torch.randn(t.shape, generator=g) for t in (rows, *finals)]
    inputs = [*leaves, *layer.parameters()]
    grads = torch.autograd.grad([rows, *finals], inputs, cotangents)
    names = ["x", *kind.states][: len(leaves)] + [n for n, _ in layer.named_parameters()]
    results = {"y": rows, **{f"{n}_n": t for n, t in zip(kind.states, finals)}}
    results |= {f"d {n}": d for n, d in zip(names, grads)}
    if isinstance(y, PackedSequence):
        results |= {n: getattr(y, n) for n in ("batch_sizes", "sorted_indices", "unsorted_indices")}
    return results


def compare(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, expected in want.items():
        if expected is None:
            assert got[name] is None, name
        else:
            torch.testing.assert_close(got[name], expected, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("training", [True, False], ids=["p 0", "eval"])
@every_choice
def test_inexact_is_torchs_within_rounding(
    kind, layout: str, config: dict[str, Any], state: bool, training: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Packed rows then run on our kernels, where there are any."""
    ran = []
    real = getattr(ops, kind.op)
    monkeypatch.setattr(ops, kind.op, lambda *a, **k: ran.append(1) or real(*a, **k))
    theirs, ours = (layer.train(training) for layer in pair(kind, layout, config))
    ours.exact = False
    data, arguments = example(kind, layout, config, state)
    compare(run(kind, ours, data, arguments), run(kind, theirs, data, arguments))
    assert bool(ran) == (layout in LENGTHS and ops.has_kernels(data[0]))


@every_choice
def test_evaluation_is_torchs_bit_for_bit(
    kind, layout: str, config: dict[str, Any], state: bool
) -> None:
    theirs, ours = pair(kind, layout, config, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    data, arguments = example(kind, layout, config, state)
    want, got = run(kind, theirs.eval(), data, arguments), run(kind, ours.eval(), data, arguments)
    for name, expected in want.items():
        assert (got[name] is None) if expected is None else torch.equal(got[name], expected), name


@every_choice
def test_training_with_nothing_to_drop(
    any_engine: str, kind, layout: str, config: dict[str, Any], state: bool
) -> None:
    theirs, ours = pair(kind, layout, config)
    data, arguments = example(kind, layout, config, state)
    compare(run(kind, ours, data, arguments), run(kind, theirs, data, arguments))


@every_choice
def test_evaluation_on_a_forced_engine(
    engine: str, kind, layout: str, config: dict[str, Any], state: bool
) -> None:
    """A forced engine runs in evaluation too, and drops nothing."""
    theirs, ours = pair(kind, layout, config, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    data, arguments = example(kind, layout, config, state)
    with ops.use(engine):
        got = run(kind, ours.eval(), data, arguments)
    compare(got, run(kind, theirs.eval(), data, arguments))


def test_three_layers(kind) -> None:
    config = {"num_layers": 3, "bidirectional": True}
    theirs, ours = pair(kind, "time first", config)
    data, arguments = example(kind, "time first", config, True)
    with ops.use("portable"):
        got = run(kind, ours, data, arguments)
    compare(got, run(kind, theirs, data, arguments))


@pytest.mark.parametrize(
    ("dropout", "training", "calls"),
    [(0.5, False, 1), (0.0, True, 1), (DropoutPattern(0.5, "random"), True, 2)],
    ids=["evaluation", "nothing to drop", "random in space: one a layer"],
)
def test_torchs_calls(
    kind, dropout: Any, training: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be left out of the products, torch's fused layer computes them."""
    seen: list[Any] = []
    name = kind.stock.__name__.lower()
    real = getattr(torch._VF, name)
    monkeypatch.setattr(torch._VF, name, lambda *given: seen.append(given) or real(*given))
    ours = kind.ours(D, H, 2, bidirectional=True, dropout=dropout, input_dropout=dropout)
    ours.train(training)(torch.randn(T, B, D))
    assert len(seen) == calls


def test_layouts_of_the_results_are_torchs(kind) -> None:
    """Strides too: a caller's ``view`` works with one as with the other."""
    for layout in LAYOUTS[:4]:
        theirs, ours = pair(kind, layout, {"num_layers": 2, "bidirectional": True}, dropout=0.5)
        data, arguments = example(kind, layout, {"num_layers": 2, "bidirectional": True}, False)
        for t, o in zip(theirs.eval()(*arguments(data)), ours.eval()(*arguments(data))):
            for want, got in zip(*((r if isinstance(r, tuple) else (r,)) for r in (t, o))):
                assert got.stride() == want.stride(), layout


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtypes(kind, dtype: torch.dtype) -> None:
    layer = kind.ours(D, H, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5).to(dtype)
    y, hx = layer(torch.randn(T, B, D, dtype=dtype))
    assert {t.dtype for t in (y, *kind.parts(hx))} == {dtype}
    y.sum().backward()
    assert all(w.grad.dtype == dtype for w in layer.parameters())


def test_every_pair_of_choices_is_made() -> None:
    rows = [(layout, *config.values(), state) for layout, config, state in CHOICES]
    for one, other in itertools.combinations(zip(*rows), 2):
        assert set(zip(one, other)) == set(itertools.product(one, other))
