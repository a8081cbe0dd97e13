"""``StructuredLSTMCell``: torch's cell on a dropped input and a dropped state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, StructuredLSTMCell

B, D, H = 3, 4, 6
INPUT, STATE = 0.3, 0.6  # a rate for each tells the draws apart
CASES = {"I": "random", "III": "structured"}  # a cell draws for one step: random in time
every_space = pytest.mark.parametrize("space", CASES.values(), ids=CASES.keys())


def build(space: str = "structured", bias: bool = True, **rates: float) -> StructuredLSTMCell:
    patterns = {n: DropoutPattern(p, space) for n, p in rates.items()}
    return StructuredLSTMCell(D, H, bias, dtype=torch.float64, **patterns)


def example(batched: bool = True) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    x, h, c = (torch.randn(B, n, dtype=torch.float64) for n in (D, H, H))
    return (x, (h, c)) if batched else (x[0], (h[0], c[0]))


def weights(cell: nn.LSTMCell) -> list[Tensor]:
    return list(cell.parameters())


batches = pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
states = pytest.mark.parametrize("state", [False, True], ids=["zeros", "hx given"])
biases = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


@batches
@states
@biases
@pytest.mark.parametrize("why", ["evaluation", "nothing to drop"])
def test_is_torchs_cell(batched: bool, state: bool, bias: bool, why: str) -> None:
    rates = {"input_dropout": 0.5, "recurrent_dropout": 0.5} if why == "evaluation" else {}
    ours = build(bias=bias, **rates).train(why != "evaluation")
    theirs = nn.LSTMCell(D, H, bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x, hx = example(batched)
    arguments = (x, hx) if state else (x,)
    for got, want in zip(ours(*arguments), theirs(*arguments)):
        assert torch.equal(got, want)


@batches
@states
@biases
@every_space
@pytest.mark.parametrize("rates", [{"input_dropout": INPUT}, {"recurrent_dropout": STATE},
                                   {"input_dropout": INPUT, "recurrent_dropout": STATE}],
                         ids=["input", "state", "both"])  # fmt: skip
def test_drops_what_enters(
    any_engine: str, batched: bool, state: bool, bias: bool, space: str, rates: Any, drawn
) -> None:
    cell = build(space, bias, **rates)
    x, hx = example(batched)
    leaves = [t.requires_grad_() for t in (x, *(hx if state else ()))]
    h, c = cell(x, hx) if state else cell(x)
    assert h.shape == c.shape == hx[0].shape
    assert {p: len(keeps) for p, keeps in drawn.items()} == dict.fromkeys(rates.values(), 1)

    def dropped(x: Tensor, p: float) -> Tensor:
        if p not in rates.values():
            return x
        mask = drawn[p][0].mask()[0]
        return x * (mask if batched else mask[0]) * drawn[p][0].scale

    zeros = torch.zeros_like(hx[0])
    h_0, c_0 = hx if state else (zeros, zeros)
    theirs = nn.LSTMCell(D, H, bias, dtype=torch.float64)
    theirs.load_state_dict(cell.state_dict())
    want = theirs(dropped(x, INPUT), (dropped(h_0, STATE), c_0))
    for got, expected in zip((h, c), want):
        torch.testing.assert_close(got, expected)
    grads = torch.autograd.grad(h.sum() + c.sum(), [*leaves, *weights(cell)])
    want_grads = torch.autograd.grad(want[0].sum() + want[1].sum(), [*leaves, *weights(theirs)])
    for name, got, expected in zip(["x", "h", "c", "w_ih", "w_hh", "b_ih", "b_hh"][-len(grads):],
                                   grads, want_grads):  # fmt: skip
        torch.testing.assert_close(got, expected, msg=lambda m, n=name: f"{n}: {m}")


def test_each_call_draws_anew(drawn) -> None:
    cell = build(input_dropout=INPUT)
    x = torch.randn(B, D, dtype=torch.float64)
    for _ in range(3):
        cell(x)
    assert len(drawn[INPUT]) == 3


@pytest.mark.parametrize(
    ("place", "name"), [("input_dropout", "keep"), ("recurrent_dropout", "recurrent_keep")]
)
def test_fixed_in_time_needs_sets(place: str, name: str, drawn) -> None:
    """A cell cannot know where a sequence begins, so it must be told."""
    pattern = DropoutPattern(0.5, time="fixed")
    cell = StructuredLSTMCell(D, H, dtype=torch.float64, **{place: pattern})
    x, hx = example()
    with pytest.raises(ValueError) as error:
        cell(x, hx)
    assert str(error.value) == (
        f'a cell with time="fixed" needs {name}=: draw the sets once a sequence with '
        "pattern.draw(1, B, D) and pass them at every step"
    )
    keep = pattern.draw(1, B, x.shape[1] if name == "keep" else H)
    h, c = cell(x, hx, **{name: keep})
    h2, c2 = cell(x, hx, **{name: keep})
    assert torch.equal(h, h2)
    assert torch.equal(c, c2)
    assert len(drawn[0.5]) == 1
    cell.eval()(x, hx)  # drops nothing, so it needs no sets


@every_space
def test_sets_that_are_given(space: str, drawn) -> None:
    """They replace the cell's own draw, and work where the cell has no rate."""
    x, hx = example()
    keep = DropoutPattern(0.5, space).draw(5, B, D)
    state_keep = DropoutPattern(0.25, space).draw(5, B, H)
    drawn.clear()
    for cell in (build(), build(input_dropout=INPUT, recurrent_dropout=STATE)):
        h, c = cell(x, hx, keep=keep[2], recurrent_keep=state_keep[2])
        theirs = nn.LSTMCell(D, H, dtype=torch.float64)
        theirs.load_state_dict(cell.state_dict())
        want = theirs(keep[2].apply(x[None])[0], (state_keep[2].apply(hx[0][None])[0], hx[1]))
        torch.testing.assert_close((h, c), want)
    assert not drawn


def test_sets_of_a_whole_sequence_are_refused() -> None:
    x, hx = example()
    with pytest.raises(ValueError, match=r"^keep sets of 5 steps do not fit an input of 1 steps"):
        build()(x, hx, keep=DropoutPattern(0.5).draw(5, B, D))


def test_a_loop_of_cells_is_the_lstm(drawn) -> None:
    """With the same sets, step by step, forward and backward."""
    from opennmt_sd import StructuredLSTM

    T = 5
    lstm = StructuredLSTM(D, H, input_dropout=INPUT, recurrent_dropout=STATE, dtype=torch.float64)
    cell = build(input_dropout=INPUT, recurrent_dropout=STATE)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({n: getattr(lstm, f"{n}_l0") for n in names})
    x = torch.randn(T, B, D, dtype=torch.float64)
    y, (h_n, c_n) = lstm(x)
    (keep,), (state_keep,) = drawn[INPUT], drawn[STATE]
    h = c = torch.zeros(B, H, dtype=torch.float64)
    outputs = []
    for t in range(T):
        h, c = cell(x[t], (h, c), keep=keep[t], recurrent_keep=state_keep[t])
        outputs.append(h)
    torch.testing.assert_close(torch.stack(outputs), y)
    torch.testing.assert_close((h, c), (h_n[0], c_n[0]))
    lstm_grads = torch.autograd.grad(y.square().sum(), list(lstm.parameters()))
    cell_grads = torch.autograd.grad(torch.stack(outputs).square().sum(), weights(cell))
    torch.testing.assert_close(cell_grads, lstm_grads)


def test_arguments_are_torchs() -> None:
    arguments = (D, H, False, "cpu", torch.float64)
    theirs, ours = nn.LSTMCell(*arguments), StructuredLSTMCell(*arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.weight_ih.dtype == torch.float64
    assert isinstance(ours, nn.LSTMCell)
    with pytest.raises(TypeError, match="positional argument"):
        StructuredLSTMCell(*arguments, 0.5)  # type: ignore[misc]


def test_a_generator_of_its_own() -> None:
    cell = build(input_dropout=0.5, recurrent_dropout=0.5)
    cell.generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    x, hx = example()
    before = torch.get_rng_state()
    first = cell(x, hx)
    assert torch.equal(torch.get_rng_state(), before)
    cell.generator.manual_seed(3)
    assert torch.equal(cell(x, hx)[0], first[0])
