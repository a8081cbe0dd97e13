"""``StructuredLSTMCell``, ``StructuredGRUCell``: torch's cells on a dropped input and state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, StructuredGRUCell, StructuredLSTMCell, ops
from opennmt_sd.ops import engines
from opennmt_sd.ops.cpu import native

B, D, H = 3, 4, 6
INPUT, STATE = 0.3, 0.6  # a rate for each tells the draws apart
CASES = {"I": "random", "III": "structured"}  # a cell draws for one step: random in time
every_space = pytest.mark.parametrize("space", CASES.values(), ids=CASES.keys())


def build(kind, space: str = "structured", bias: bool = True, **rates: float) -> Any:
    patterns = {n: DropoutPattern(p, space) for n, p in rates.items()}
    return kind.our_cell(D, H, bias, dtype=torch.float64, **patterns)


def example(kind, batched: bool = True) -> tuple[Tensor, Any]:
    x, *states = (torch.randn(B, n, dtype=torch.float64) for n in (D, *[H] * len(kind.states)))
    return (x, kind.hx(states)) if batched else (x[0], kind.hx([s[0] for s in states]))


def weights(cell: nn.Module) -> list[Tensor]:
    return list(cell.parameters())


def step(cell: nn.Module, x: Tensor, state: Sequence[Tensor], read: Tensor) -> tuple[Tensor, ...]:
    """torch's step, whose product reads another h than the state has."""
    if isinstance(cell, nn.LSTMCell):
        return cell(x, (read, state[1]))
    of_x = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(3, -1)
    of_h = F.linear(read, cell.weight_hh, cell.bias_hh).chunk(3, -1)
    r, z = (torch.sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2]))
    return ((1 - z) * torch.tanh(of_x[2] + r * of_h[2]) + z * state[0],)


batches = pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
states = pytest.mark.parametrize("state", [False, True], ids=["zeros", "hx given"])
biases = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


@batches
@states
@biases
@pytest.mark.parametrize("why", ["evaluation", "nothing to drop"])
def test_is_torchs_cell(kind, batched: bool, state: bool, bias: bool, why: str) -> None:
    rates = {"input_dropout": 0.5, "recurrent_dropout": 0.5} if why == "evaluation" else {}
    ours = build(kind, bias=bias, **rates).train(why != "evaluation")
    theirs = kind.stock_cell(D, H, bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x, hx = example(kind, batched)
    arguments = (x, hx) if state else (x,)
    for got, want in zip(kind.parts(ours(*arguments)), kind.parts(theirs(*arguments))):
        assert torch.equal(got, want)


@batches
@states
@biases
@every_space
@pytest.mark.parametrize("rates", [{"input_dropout": INPUT}, {"recurrent_dropout": STATE},
                                   {"input_dropout": INPUT, "recurrent_dropout": STATE}],
                         ids=["input", "state", "both"])  # fmt: skip
def test_drops_what_enters(
    any_engine: str, kind, batched: bool, state: bool, bias: bool, space: str, rates: Any, drawn
) -> None:
    cell = build(kind, space, bias, **rates)
    x, hx = example(kind, batched)
    given = kind.parts(hx) if state else [torch.zeros_like(s) for s in kind.parts(hx)]
    leaves = [t.requires_grad_() for t in (x, *(given if state else ()))]
    got = kind.parts(cell(x, hx) if state else cell(x))
    assert [t.shape for t in got] == [t.shape for t in given]
    assert {p: len(keeps) for p, keeps in drawn.items()} == dict.fromkeys(rates.values(), 1)

    def dropped(x: Tensor, p: float) -> Tensor:
        if p not in rates.values():
            return x
        mask = drawn[p][0].mask()[0]
        return x * (mask if batched else mask[0]) * drawn[p][0].scale

    theirs = kind.stock_cell(D, H, bias, dtype=torch.float64)
    theirs.load_state_dict(cell.state_dict())
    want = step(theirs, dropped(x, INPUT), given, dropped(given[0], STATE))
    torch.testing.assert_close(got, want)
    grads = torch.autograd.grad(sum(t.sum() for t in got), [*leaves, *weights(cell)])
    want_grads = torch.autograd.grad(sum(t.sum() for t in want), [*leaves, *weights(theirs)])
    names = ["x", *kind.states][: len(leaves)] + [n for n, _ in cell.named_parameters()]
    for name, a, b in zip(names, grads, want_grads, strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}")


def test_each_call_draws_anew(kind, drawn) -> None:
    cell = build(kind, input_dropout=INPUT)
    x = torch.randn(B, D, dtype=torch.float64)
    for _ in range(3):
        cell(x)
    assert len(drawn[INPUT]) == 3


@pytest.mark.parametrize(
    ("place", "name"), [("input_dropout", "keep"), ("recurrent_dropout", "recurrent_keep")]
)
def test_fixed_in_time_needs_sets(kind, place: str, name: str, drawn) -> None:
    """A cell cannot know where a sequence begins, so it must be told."""
    pattern = DropoutPattern(0.5, time="fixed")
    cell = kind.our_cell(D, H, dtype=torch.float64, **{place: pattern})
    x, hx = example(kind)
    with pytest.raises(ValueError) as error:
        cell(x, hx)
    assert str(error.value) == (
        f'a cell with time="fixed" needs {name}=: draw the sets once a sequence with '
        "pattern.draw(1, B, D) and pass them at every step"
    )
    keep = pattern.draw(1, B, x.shape[1] if name == "keep" else H)
    first, again = (kind.parts(cell(x, hx, **{name: keep})) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert len(drawn[0.5]) == 1
    cell.eval()(x, hx)  # drops nothing, so it needs no sets


@every_space
def test_sets_that_are_given(any_engine: str, kind, space: str, drawn) -> None:
    """They replace the cell's own draw, and work where the cell has no rate."""
    x, hx = example(kind)
    keep = DropoutPattern(0.5, space).draw(5, B, D)
    state_keep = DropoutPattern(0.25, space).draw(5, B, H)
    drawn.clear()
    for cell in (build(kind), build(kind, input_dropout=INPUT, recurrent_dropout=STATE)):
        got = cell(x, hx, keep=keep[2], recurrent_keep=state_keep[2])
        theirs = kind.stock_cell(D, H, dtype=torch.float64)
        theirs.load_state_dict(cell.state_dict())
        state = kind.parts(hx)
        read = state_keep[2].apply(state[0][None])[0]
        want = step(theirs, keep[2].apply(x[None])[0], state, read)
        torch.testing.assert_close(kind.parts(got), want)
    assert not drawn


@every_space
@pytest.mark.parametrize("given", [("keep",), ("recurrent_keep",), ("keep", "recurrent_keep")])
def test_without_kernels(kind, given, space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing would be left out: torch's own products, on what is kept; even twice
    differentiable."""
    monkeypatch.setattr(ops, "leaves_out", lambda *_: False)
    cell, (x, hx) = build(kind), example(kind)
    theirs = kind.stock_cell(D, H, dtype=torch.float64)
    theirs.load_state_dict(cell.state_dict())
    pattern = DropoutPattern(0.5, space)
    sets = {"keep": pattern.draw(1, B, D), "recurrent_keep": pattern.draw(1, B, H)}
    sets = {name: sets[name] for name in given}
    x.requires_grad_()
    got = kind.parts(cell(x, hx, **sets))
    state = kind.parts(hx)
    kept = sets["keep"].apply(x[None])[0] if "keep" in sets else x
    read = state[0]
    if "recurrent_keep" in sets:
        read = sets["recurrent_keep"].apply(read[None])[0]
    torch.testing.assert_close(got, step(theirs, kept, state, read))
    (dx,) = torch.autograd.grad(got[0].square().sum(), x, create_graph=True)
    dx.square().sum().backward()
    assert x.grad.any()


X, STATE_0 = torch.zeros(B, D), torch.zeros(B, H)
WRONG: dict[str, tuple[Tensor, ...]] = {
    "three axes": (X[None],),
    "no axis": (torch.tensor(1.0),),
    "another width": (torch.zeros(B, D + 1),),
    "another width, unbatched": (torch.zeros(D + 1),),
    "a state of another batch": (X, STATE_0[:2]),
    "a state of another width": (X, torch.zeros(B, H + 1)),
    "a state without batch": (X, STATE_0[0]),
    "a state without batch, for a batch of one": (X[:1], STATE_0[0]),
    "a batch of states, unbatched": (X[0], STATE_0),
}


@pytest.mark.parametrize("fault", WRONG)
def test_torchs_own_errors(any_engine: str, kind, fault: str) -> None:
    """Of torch's kind and in torch's words, while something is dropped too."""
    x, *state = WRONG[fault]
    given = (x, *(kind.hx([h] * len(kind.states)) for h in state))
    ours = kind.our_cell(D, H, input_dropout=0.5, recurrent_dropout=0.5)
    with pytest.raises(Exception) as want:
        kind.stock_cell(D, H)(*given)
    with pytest.raises(want.type) as got:
        ours(*given)
    assert str(got.value).replace("Structured", "") == str(want.value)


def test_sets_of_a_whole_sequence_are_refused(any_engine: str, kind) -> None:
    x, hx = example(kind)
    with pytest.raises(ValueError, match=r"^keep sets of 5 steps do not fit an input of 1 steps"):
        build(kind)(x, hx, keep=DropoutPattern(0.5).draw(5, B, D))


def test_a_loop_of_cells_is_the_layer(kind, drawn) -> None:
    """With the same sets, step by step, forward and backward."""
    T = 5
    rates = {"input_dropout": INPUT, "recurrent_dropout": STATE}
    layer, cell = kind.ours(D, H, dtype=torch.float64, **rates), build(kind, **rates)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({n: getattr(layer, f"{n}_l0") for n in names})
    x = torch.randn(T, B, D, dtype=torch.float64)
    y, finals = layer(x)
    (keep,), (state_keep,) = drawn[INPUT], drawn[STATE]
    hx = kind.hx([torch.zeros(B, H, dtype=torch.float64)] * len(kind.states))
    outputs = []
    for t in range(T):
        hx = cell(x[t], hx, keep=keep[t], recurrent_keep=state_keep[t])
        outputs.append(kind.parts(hx)[0])
    torch.testing.assert_close(torch.stack(outputs), y)
    torch.testing.assert_close(kind.parts(hx), tuple(s[0] for s in kind.parts(finals)))
    layer_grads = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    cell_grads = torch.autograd.grad(torch.stack(outputs).square().sum(), weights(cell))
    torch.testing.assert_close(cell_grads, layer_grads)


def test_arguments_are_torchs(kind) -> None:
    arguments = (D, H, False, "cpu", torch.float64)
    theirs, ours = kind.stock_cell(*arguments), kind.our_cell(*arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.weight_ih.dtype == torch.float64
    assert isinstance(ours, kind.stock_cell)
    with pytest.raises(TypeError, match="positional argument"):
        kind.our_cell(*arguments, 0.5)


def test_a_generator_of_its_own(kind) -> None:
    cell = build(kind, input_dropout=0.5, recurrent_dropout=0.5)
    cell.generator = torch.Generator().manual_seed(3)
    x, hx = example(kind)
    before = torch.get_rng_state()
    first = kind.parts(cell(x, hx))[0]
    assert torch.equal(torch.get_rng_state(), before)
    cell.generator.manual_seed(3)
    assert torch.equal(kind.parts(cell(x, hx))[0], first)


@pytest.mark.parametrize("rates", [{"input_dropout": 0.5}, {"recurrent_dropout": 0.5}],
                         ids=["input", "state"])  # fmt: skip
@pytest.mark.parametrize("large", [False, True])
def test_a_small_step_is_torchs_own(kind, rates: Any, large: bool, monkeypatch) -> None:
    """Under 10 million multiplications. A GRU cell of torch's has no place for a masked state."""
    if native() is None:
        pytest.skip("the native module was not built")
    D, H = 600, 401
    B = 10_000_000 // (kind.gates * H * (D + H)) + large
    monkeypatch.setattr(engines, "outruns_torch", lambda: True)  # the rate is then all the same
    cell, x = kind.our_cell(D, H, **rates), torch.randn(B, D)
    calls: list[int] = []
    step = type(cell)._our_step
    monkeypatch.setattr(type(cell), "_our_step", lambda *given: calls.append(1) or step(*given))
    cell(x)
    assert bool(calls) == (large or (kind.gates == 3 and "recurrent_dropout" in rates))


def test_the_rates_of_a_cell_count_by_their_widths(monkeypatch) -> None:
    """Where torch multiplies as fast: a fifth of 600 inputs and half of 400 units make .32."""
    asked: list[float] = []
    monkeypatch.setattr(ops, "leaves_out", lambda x, n, p: asked.append(p) or True)
    rates = {"input_dropout": 0.2, "recurrent_dropout": 0.5}
    StructuredLSTMCell(600, 400, **rates)(torch.randn(2, 600))
    assert asked == [pytest.approx(0.32)]


@pytest.mark.parametrize("size", [5, 600])
@pytest.mark.parametrize("kind", [StructuredLSTMCell, StructuredGRUCell])
def test_under_autocast_a_state_keeps_its_dtype(kind: type[nn.Module], size: int) -> None:
    """As torch's own: autocast does not know a cell, and lowers its products alone."""
    cell = kind(size, size, input_dropout=0.5, recurrent_dropout=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = cell(torch.randn(16, size))
    parts = state if isinstance(state, tuple) else (state,)
    assert {part.dtype for part in parts} == {torch.float32}
