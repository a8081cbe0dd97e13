"""``MaskedLinear``: ``nn.Linear`` on a dropped input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import DropoutPattern, MaskedLinear, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.dropout.staggered import StaggeredSets
from opennmt_sd.ops import engines
from opennmt_sd.ops.cpu import native

T, B, D, N = 5, 3, 4, 6
CASES = {"I": ("random", "random"), "II": ("random", "fixed"),
         "III": ("structured", "random"), "IV": ("structured", "fixed")}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)
biases = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
LAYOUTS = ["time first", "batch first", "one step", "packed", "packed unsorted"]


def build(case: str = "III", bias: bool = True, p: float = 0.5, **kwargs: Any) -> MaskedLinear:
    pattern = DropoutPattern(p, *CASES[case])
    return MaskedLinear(D, N, bias, dtype=torch.float64, dropout=pattern, **kwargs)


def example(layout: str) -> tuple[Tensor, Any]:
    """A leaf and the input made of it."""
    shape = {"batch first": (B, T, D), "one step": (B, D)}.get(layout, (T, B, D))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    if layout.startswith("packed"):
        lengths = torch.tensor([5, 3, 1] if layout == "packed" else [2, 5, 1])
        return x, pack_padded_sequence(x, lengths, enforce_sorted=layout == "packed")
    return x, x


def dropped(given: Any, layout: str, keep: Any) -> Tensor:
    """By hand: ``[T, B, D]`` times a mask, in the layout given."""
    if isinstance(given, PackedSequence):
        where = [(t, b) for t, n in enumerate(given.batch_sizes.tolist()) for b in range(n)]
        mask = keep.mask().expand(T, B, D)
        return torch.stack([x * mask[tb] for x, tb in zip(given.data, where)]) * keep.scale
    if layout == "one step":
        return given * keep.mask()[0] * keep.scale
    mask = keep.mask().expand(T, B, D)
    return given * (mask.transpose(0, 1) if layout == "batch first" else mask) * keep.scale


@biases
@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_drops_its_input(any_engine: str, layout: str, case: str, bias: bool, drawn) -> None:
    linear = build(case, bias, batch_first=layout == "batch first")
    x, given = example(layout)
    y = linear(given)
    (keep,) = drawn[0.5]
    want = F.linear(dropped(given, layout, keep), linear.weight, linear.bias)
    if isinstance(given, PackedSequence):
        assert isinstance(y, PackedSequence)
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            assert getattr(y, name) is getattr(given, name), name
        y = y.data
    torch.testing.assert_close(y, want)
    leaves = [x, *linear.parameters()]
    cotangent = torch.randn_like(y)
    got = torch.autograd.grad(y, leaves, cotangent, retain_graph=True)  # packing is shared
    expected = torch.autograd.grad(want, leaves, cotangent)
    for name, a, b in zip(("x", "weight", "bias"), got, expected):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"gradient of {n}: {m}")


@biases
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("why", ["evaluation", "nothing to drop"])
def test_is_torchs_linear(layout: str, bias: bool, why: str, drawn) -> None:
    linear = build(bias=bias, p=0.0 if why == "nothing to drop" else 0.5)
    linear.train(why != "evaluation")
    _, given = example(layout)
    rows = given.data if isinstance(given, PackedSequence) else given
    y = linear(given)
    y = y.data if isinstance(given, PackedSequence) else y
    assert torch.equal(y, F.linear(rows, linear.weight, linear.bias))
    assert not drawn


def test_evaluation_takes_any_shape() -> None:
    """As nn.Linear: there is no time axis to find where nothing is dropped."""
    linear = build().eval()
    for shape in ((D,), (2, 3, 4, D)):
        x = torch.randn(shape, dtype=torch.float64)
        assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))


@every_case
def test_sets_that_are_given(case: str, drawn) -> None:
    """They replace the draw, also where there is no rate; the input stays raw."""
    x = torch.randn(T, B, D, dtype=torch.float64)
    keep = DropoutPattern(0.25, *CASES[case]).draw(T, B, D)
    drawn.clear()
    for p in (0.0, 0.5):
        linear = build(case, p=p)
        want = F.linear(keep.apply(x), linear.weight, linear.bias)
        torch.testing.assert_close(linear(x, keep), want)
        linear.eval()
        assert torch.equal(linear(x, keep), linear(x)), "evaluation drops nothing"
    assert not drawn


@pytest.mark.parametrize("kind", ["random", "staggered", "structured"])
def test_sets_that_are_given_for_unsorted_rows(kind: str) -> None:
    """They are in the order of the samples, not of the packed ones."""
    linear = build()
    lengths = [2, T, 1]
    x = torch.randn(T, 3, D, dtype=torch.float64)
    space = "random" if kind == "random" else "structured"
    keep: Keep = DropoutPattern(0.5, space).draw(T, 3, D)
    if kind == "staggered":
        keep = StaggeredSets.of(keep, T, 3)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, _ = pad_packed_sequence(linear(packed, keep))
    want = linear(x, keep)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(y[:n, b], want[:n, b])


def test_sets_of_a_dropped_input() -> None:
    """An input that is masked and scaled already: the same sets, with scale 1."""
    linear = build()
    x = torch.randn(T, B, D, dtype=torch.float64)
    keep = linear.dropout.draw(T, B, D)
    torch.testing.assert_close(linear(keep.apply(x), keep.rescaled(1.0)), linear(x, keep))


def test_batch_first_finds_the_time_axis(drawn) -> None:
    build(batch_first=True)(torch.randn(B, T, D, dtype=torch.float64))
    (keep,) = drawn[0.5]
    assert keep.steps == T


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(D,), (2, T, B, D)], ids=["one axis", "four axes"])
def test_other_shapes_are_refused(shape: tuple[int, ...], batch_first: bool) -> None:
    with pytest.raises(ValueError) as error:
        build(batch_first=batch_first)(torch.randn(shape, dtype=torch.float64))
    assert str(error.value) == (
        "input must be [T, B, D] (time first; [B, T, D] needs batch_first=True), [B, D] for one "
        f"step, or a PackedSequence; got {list(shape)}"
    )


def test_another_width_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^weight must be \[N, 5\] as in nn\.Linear, got \[6, 4\]"
    ):
        build()(torch.randn(T, B, D + 1, dtype=torch.float64))


def test_tied_weights(any_engine: str, drawn) -> None:
    """One Parameter for the embedding and the projection: both gradients arrive."""
    embedding = nn.Embedding(N, D, dtype=torch.float64)
    linear = build()
    linear.weight = embedding.weight
    ids = torch.randint(N, (T, B))
    linear(embedding(ids)).square().sum().backward()
    got = embedding.weight.grad.clone()
    embedding.zero_grad()
    (keep,) = drawn[0.5]
    F.linear(keep.apply(embedding(ids)), embedding.weight, linear.bias).square().sum().backward()
    torch.testing.assert_close(got, embedding.weight.grad)


def test_arguments_are_torchs() -> None:
    arguments = (D, N, False, "cpu", torch.float64)
    theirs, ours = nn.Linear(*arguments), MaskedLinear(*arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    assert ours.weight.dtype == torch.float64
    assert isinstance(ours, nn.Linear)
    assert ours.dropout == DropoutPattern(0.5)
    with pytest.raises(TypeError, match="positional argument"):
        MaskedLinear(*arguments, 0.5)  # type: ignore[misc]


def test_a_generator_of_its_own() -> None:
    linear = build()
    x = torch.randn(T, B, D, dtype=torch.float64)
    linear.generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    first = linear(x)
    assert torch.equal(torch.get_rng_state(), before)
    linear.generator.manual_seed(3)
    assert torch.equal(linear(x), first)


@pytest.mark.parametrize("time", ["random", "fixed"])
def test_multiplies_less(compacting: str, time: str, drawn) -> None:
    """FP, BP and WG together take the share that is kept."""
    linear = MaskedLinear(200, 120, dropout=DropoutPattern(0.65, time=time))
    with ops.use(compacting), FlopCounterMode(display=False) as counter:
        linear(torch.randn(8, 4, 200, requires_grad=True)).sum().backward()
    kept = drawn[0.65][0].mask().expand(8, -1, -1).double().mean()
    assert counter.get_total_flops() / (3 * 2 * 8 * 4 * 200 * 120) == pytest.approx(kept.item())
    assert kept < 0.45


@pytest.mark.parametrize(
    ("B", "p", "engine", "compacts"),
    [(19, 0.5, "auto", False), (20, 0.5, "auto", True), (19, 0.5, "cpu", True),
     (20, 0.5, "dense", False), (20, 0.25, "auto", False), (40, 0.25, "auto", True),
     (19, 0.9, "auto", False)],
)  # fmt: skip
def test_a_small_product_is_torchs_own(
    B: int, p: float, engine: str, compacts: bool, monkeypatch
) -> None:
    """Under 10 million multiplications what is left out saves less than leaving it out costs; under
    p = .5, where torch multiplies as fast, more have to be there."""
    if native() is None:
        pytest.skip("the native module was not built")
    calls: list[int] = []
    op = ops.masked_linear
    monkeypatch.setattr(ops, "masked_linear", lambda *a, **k: calls.append(1) or op(*a, **k))
    monkeypatch.setattr(engines, "outruns_torch", lambda: False)
    linear, x = MaskedLinear(400, 1250, dropout=p), torch.randn(1, B, 400)
    with ops.use(engine):
        torch.manual_seed(3)
        got = linear(x)
    assert bool(calls) == compacts
    torch.manual_seed(3)
    kept = DropoutPattern(p).draw(1, B, 400).apply(x)
    torch.testing.assert_close(got, F.linear(kept, linear.weight, linear.bias))
    monkeypatch.setattr(engines, "outruns_torch", lambda: True)
    assert ops.leaves_out(x, 10_000_000, 0.1)
    assert not ops.leaves_out(x, 9_999_999, 0.1)
