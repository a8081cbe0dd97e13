"""``StructuredLSTM``, ``StructuredGRU`` in training: what they drop, where, when they draw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import DropoutPattern, KeepMask, KeepSets, StructuredGRU, StructuredLSTM, ops

T, B, D, H = 5, 3, 4, 6
INPUT, BETWEEN, RECURRENT = 0.3, 0.4, 0.6  # a rate for each place tells the draws apart

CASES = {"I": ("random", "random"), "II": ("random", "fixed"),
         "III": ("structured", "random"), "IV": ("structured", "fixed")}  # fmt: skip
PLACES = {
    "input": {"input_dropout": INPUT},
    "between": {"dropout": BETWEEN},
    "recurrent": {"recurrent_dropout": RECURRENT},
    "all": {"input_dropout": INPUT, "dropout": BETWEEN, "recurrent_dropout": RECURRENT},
}
every_case = pytest.mark.parametrize("case", CASES)
ways = pytest.mark.parametrize("both", [False, True], ids=["one way", "two ways"])


def build(kind, case: str, rates: dict[str, float], both: bool = False, layers: int = 2) -> Any:
    patterns = {n: DropoutPattern(p, *CASES[case]) for n, p in rates.items()}
    return kind.ours(D, H, layers, bidirectional=both, dtype=torch.float64, **patterns)


@every_case
@ways
def test_draws(kind, case: str, both: bool, drawn) -> None:
    """One a layer for the input, whatever the directions; one a direction for the state."""
    layer = build(kind, case, PLACES["all"], both, layers=3)
    x = torch.randn(T, B, D, dtype=torch.float64)
    layer(x)
    directions = 2 if both else 1
    assert {p: len(keeps) for p, keeps in drawn.items()} == {
        INPUT: 1, BETWEEN: 2, RECURRENT: 3 * directions,
    }  # fmt: skip
    leaves_out = case in ("III", "IV") and ops.has_kernels(x)
    form = KeepSets if leaves_out else KeepMask
    steps = T if case in ("I", "III") else 1
    widths = {INPUT: D, BETWEEN: directions * H, RECURRENT: H}
    for p, keeps in drawn.items():
        for keep in keeps:
            assert (type(keep), keep.steps, keep.width) == (form, steps, widths[p])


@every_case
def test_nothing_is_carried_from_call_to_call(kind, case: str, drawn) -> None:
    """Fixed in time means fixed for one forward."""
    layer = build(kind, case, PLACES["all"])
    x = torch.randn(T, 20, D, dtype=torch.float64)
    layer(x)
    first = {p: [k.mask() for k in keeps] for p, keeps in drawn.items()}
    drawn.clear()
    layer(x)
    for p, keeps in drawn.items():
        assert len(keeps) == len(first[p])
    same = [torch.equal(a, k.mask()) for p in first for a, k in zip(first[p], drawn[p])]
    assert not all(same)


@pytest.mark.parametrize("layers", [1, 2])
def test_one_layer_has_nothing_between(kind, layers: int, drawn) -> None:
    build(kind, "III", PLACES["between"], layers=layers)(torch.randn(T, B, D, dtype=torch.float64))
    assert len(drawn[BETWEEN]) == layers - 1


@every_case
def test_evaluation_draws_nothing(kind, case: str, drawn) -> None:
    build(kind, case, PLACES["all"]).eval()(torch.randn(T, B, D, dtype=torch.float64))
    assert not drawn


@every_case
def test_what_is_returned_is_undropped(kind, case: str) -> None:
    layer = build(kind, case, {"recurrent_dropout": 0.9, "input_dropout": 0.9}, layers=1)
    y, hx = layer(torch.randn(T, B, D, dtype=torch.float64))
    assert torch.equal(y[-1], kind.parts(hx)[0][0])
    assert all((state != 0).all() for state in kind.parts(hx))


def test_a_given_state_is_dropped_where_it_enters(kind) -> None:
    """Set 0 acts on h_0: a unit that it drops may hold anything, and a GRU carries that over."""
    layer = build(kind, "III", PLACES["recurrent"], layers=1)
    x = torch.randn(1, B, D, dtype=torch.float64)
    h, *rest = torch.randn(len(kind.states), 1, B, H, dtype=torch.float64)
    torch.manual_seed(5)
    want, _ = layer(x, kind.hx([h, *rest]))
    torch.manual_seed(5)
    kept = DropoutPattern(RECURRENT).draw(1, B, H).mask()[0, 0]
    assert 0 < kept.sum() < H
    torch.manual_seed(5)
    got, _ = layer(x, kind.hx([torch.where(kept, h, torch.nan), *rest]))
    if kind.ours is StructuredGRU:
        assert got[..., ~kept].isnan().all()
        got, want = got[..., kept], want[..., kept]
    assert torch.equal(got, want)


@every_case
def test_given_sets_that_do_not_fit(kind, case: str) -> None:
    layer = build(kind, case, {})
    x = torch.randn(T, B, D, dtype=torch.float64)
    for size in ((T, B, D + 1), (T + 1, B, D), (T, B + 1, D)):
        keep = DropoutPattern(0.5, *CASES[case]).draw(*size)
        fits = (case in ("II", "IV") and size[0] != T) or (case in ("III", "IV") and size[1] != B)
        if fits:  # one set for all steps fits any number of them; so does a shared one the batch
            layer(x, input_keep=keep)
        else:
            with pytest.raises(ValueError, match=r"^(keep sets of|what is kept of a batch)"):
                layer(x, input_keep=keep)


@every_case
@ways
def test_a_generator_of_its_own(kind, case: str, both: bool) -> None:
    layer = build(kind, case, PLACES["all"], both)
    x = torch.randn(T, B, D, dtype=torch.float64)
    layer.generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    first, second = layer(x)[0], layer(x)[0]
    assert torch.equal(torch.get_rng_state(), before), "the default generator must stay untouched"
    assert not torch.equal(first, second)
    layer.generator.manual_seed(3)
    assert torch.equal(layer(x)[0], first)


@every_case
@ways
def test_engines_draw_alike(engine: str, kind, case: str, both: bool) -> None:
    """One seed, one training step, whatever the engine."""
    layer = build(kind, case, PLACES["all"], both)
    x = torch.randn(T, B, D, dtype=torch.float64)
    results = []
    for name in ("naive", engine, "auto"):
        torch.manual_seed(5)
        with ops.use(name):
            y, hx = layer(x)
        outputs = [y, *kind.parts(hx)]
        grads = torch.autograd.grad(sum(t.sum() for t in outputs), list(layer.parameters()))
        results.append([*outputs, *grads])
    for other in results[1:]:
        for got, want in zip(other, results[0]):
            torch.testing.assert_close(got, want)


def test_a_rate_keeps_space_and_time() -> None:
    layer = StructuredLSTM(D, H, 2, dropout=DropoutPattern(0.5, "random", "fixed"))
    layer.dropout = 0.3
    assert layer.dropout == DropoutPattern(0.3, "random", "fixed")
    layer.dropout = None
    assert layer.dropout == DropoutPattern(0.0, "random", "fixed")
    layer.dropout = DropoutPattern(0.2)
    assert layer.dropout == DropoutPattern(0.2, "structured", "random")


@pytest.mark.parametrize("rates", PLACES.values(), ids=PLACES.keys())
def test_structured_training_multiplies_less(
    compacting: str, kind, rates: dict[str, float]
) -> None:
    """Each place shrinks its own products, forward and backward."""
    wide = 64

    def flops(**rates: float) -> int:
        torch.manual_seed(1)
        layer = kind.ours(wide, wide, 2, **rates)
        with FlopCounterMode(display=False) as counter:
            y, _ = layer(torch.randn(6, 4, wide, requires_grad=True))
            y.sum().backward()
        return counter.get_total_flops()

    with ops.use(compacting):
        dense, ours = flops(), flops(**rates)
    # Of the four products (input and state, two layers), a place serves one or two.
    parts = {"input_dropout": 1, "dropout": 1, "recurrent_dropout": 2}
    saved = sum(parts[n] * p for n, p in rates.items()) / 4
    assert ours / dense == pytest.approx(1 - saved, abs=0.05)


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
@pytest.mark.parametrize(
    ("T", "D", "H", "pays"), [(8, 200, 36, True), (7, 200, 36, False), (5, 36, 216, True)],
    ids=["large", "small", "large by its recurrence"],
)  # fmt: skip
def test_the_automatic_choice_compacts_where_it_pays(
    kind, T: int, D: int, H: int, pays: bool, given: bool
) -> None:
    """A layer of under a million multiplications, or one without native kernels, is torch's own on
    a masked input."""
    B = 4
    H = H * 4 // kind.gates  # as many products, or some more
    layer = kind.ours(D, H, input_dropout=0.5)
    keep = DropoutPattern(0.5).draw(T, B, D) if given else None
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        real = getattr(ops, kind.op)
        patch.setattr(ops, kind.op, lambda *a, **k: calls.append(1) or real(*a, **k))
        layer(torch.randn(T, B, D), input_keep=keep)
    assert bool(calls) is (pays and ops.engine_for() == "cpu")


def test_packed_results_keep_their_order(kind) -> None:
    x = torch.randn(T, B, D, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([2, 5, 1]), enforce_sorted=False)
    y, _ = build(kind, "III", PLACES["all"], both=True)(packed)
    assert isinstance(y, PackedSequence)
    assert torch.equal(y.batch_sizes, packed.batch_sizes)
    assert torch.equal(y.sorted_indices, packed.sorted_indices)
    assert torch.equal(y.unsorted_indices, packed.unsorted_indices)


def test_drops_in_inference_mode_too(any_engine: str, kind) -> None:
    """As who samples the uncertainty of a model does; a cell as well."""
    layer, x = kind.ours(D, H, 2, input_dropout=0.5, recurrent_dropout=0.5), torch.randn(T, B, D)
    cell = kind.our_cell(D, H, input_dropout=0.5, recurrent_dropout=0.5)
    results = []
    for context in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(3)
        with context():
            y, states = layer(x)
            results.append([y, *kind.parts(states), *kind.parts(cell(x[0]))])
    for found, expected in zip(*results):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("case", ["I", "II", "III"])
def test_given_sets_are_the_samples_own_in_whatever_order_they_are_packed(kind, case: str) -> None:
    """Whoever packs unsorted sentences knows their own order alone."""
    layer = build(kind, case, {})
    lengths = [2, 5, 1]
    x = torch.randn(T, B, D, dtype=torch.float64)
    keep = DropoutPattern(INPUT, *CASES[case]).draw(T, B, D)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, _ = pad_packed_sequence(layer(packed, input_keep=keep)[0])
    for b, n in enumerate(lengths):
        want, _ = layer(keep.apply(x)[:n, b])
        torch.testing.assert_close(y[:n, b], want)


def test_packed_sets_of_another_number_of_samples(kind) -> None:
    layer = build(kind, "I", {})
    packed = pack_padded_sequence(
        torch.randn(T, B, D, dtype=torch.float64), torch.tensor([2, 5, 1]), enforce_sorted=False
    )
    with pytest.raises(ValueError, match="what is kept of a batch"):
        layer(packed, input_keep=DropoutPattern(INPUT, "random").draw(T, B + 1, D))
