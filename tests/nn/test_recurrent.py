"""``StructuredLSTM``, ``StructuredGRU`` as drop-ins: arguments, weights and errors are torch's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from opennmt_sd import DropoutPattern, StructuredGRU, StructuredGRUCell, StructuredLSTM
from opennmt_sd.compat import TORCH

T, B, D, H = 5, 3, 4, 6


def test_positional_arguments_are_torchs(kind) -> None:
    arguments: Any = (D, H, 2, False, True, 0.25, True)
    theirs = kind.stock(*arguments, device="cpu", dtype=torch.float64)
    last = (0, "cpu") if kind.ours is StructuredLSTM else ("cpu",)  # proj_size, device, dtype
    ours = kind.ours(*arguments, *last, torch.float64)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional",
                 "proj_size"):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.dropout == DropoutPattern(0.25)
    assert ours.weight_ih_l0.dtype == torch.float64
    with pytest.raises(TypeError, match="positional argument"):
        kind.ours(*arguments, *last, torch.float64, 0.5)


def test_is_one_of_torchs(kind) -> None:
    assert isinstance(kind.ours(D, H), kind.stock)


def test_the_same_seed_gives_torchs_initial_weights(kind) -> None:
    torch.manual_seed(3)
    theirs = kind.stock(D, H, 2, bidirectional=True)
    torch.manual_seed(3)
    ours = kind.ours(D, H, 2, bidirectional=True, dropout=0.5)
    for (name, want), got in zip(theirs.named_parameters(), ours.parameters()):
        assert torch.equal(got, want), name


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("both", [False, True], ids=["one way", "two ways"])
def test_state_dicts_go_both_ways(kind, both: bool, bias: bool) -> None:
    config = {"num_layers": 2, "bidirectional": both, "bias": bias}
    theirs, ours = kind.stock(D, H, **config), kind.ours(D, H, **config, dropout=0.5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [w.shape for w in ours.parameters()] == [w.shape for w in theirs.parameters()]
    before = {n: w.clone() for n, w in ours.state_dict().items()}
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    theirs.load_state_dict(before, strict=True)
    for name, weight in before.items():
        assert torch.equal(theirs.state_dict()[name], weight), name


# ---------------------------------------------------------------- errors

STATE = torch.zeros(2, B, H)
PACKED = pack_padded_sequence(torch.zeros(T, B, D + 1), torch.tensor([5, 3, 1]))
WRONG: dict[str, tuple[Any, ...]] = {
    "one axis": (torch.zeros(D),),
    "four axes": (torch.zeros(T, B, D, 1),),
    "another width": (torch.zeros(T, B, D + 1),),
    "another width, unbatched": (torch.zeros(T, D + 1),),
    "another width, packed": (PACKED,),
    "no step": (torch.zeros(0, B, D),),
    "h without batch": (torch.zeros(T, B, D), (STATE[:, 0], STATE)),
    "c without batch": (torch.zeros(T, B, D), (STATE, STATE[:, 0])),
    "a batch of states, unbatched": (torch.zeros(T, D), (STATE, STATE)),
    "h of other layers": (torch.zeros(T, B, D), (STATE[:1], STATE)),
    "h of another batch": (torch.zeros(T, B, D), (STATE[:, :2], STATE)),
    "c of another batch": (torch.zeros(T, B, D), (STATE, STATE[:, :2])),
    "another dtype": (torch.zeros(T, B, D).double(),),
}


def wrong(kind, fault: str) -> tuple[Any, ...]:
    """The arguments of a fault, with a state such as the kind has."""
    x, *state = WRONG[fault]
    return (x, *(kind.hx(hx[: len(kind.states)]) for hx in state))


# torch 2.2 computes on with a wrong width, and leaves the dtype to a kernel; ours must refuse both.
UNCHECKED_BY_OLD_TORCH = {"another width", "another width, unbatched", "another dtype"}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (kind, fault)
        for kind in ("LSTM", "GRU")
        for fault in WRONG
        if kind == "LSTM" or fault[0] != "c"
    ],
    indirect=["kind"],
)
def test_errors_are_of_torchs_kind(kind, fault: str, training: bool) -> None:
    """Whoever catches torch's errors catches ours."""
    theirs = kind.stock(D, H, 2).train(training)
    ours = kind.ours(D, H, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    if TORCH < (2, 4) and fault in UNCHECKED_BY_OLD_TORCH:
        expected: Any = (RuntimeError, ValueError)
    else:
        with pytest.raises(Exception) as want:
            theirs(*wrong(kind, fault))
        expected = want.type
    with pytest.raises(expected):
        ours.train(training)(*wrong(kind, fault))


TEXTS = [
    ("LSTM", "four axes", "input must be 3-D, or 2-D (unbatched), or packed; got [5, 3, 4, 1]"),
    ("LSTM", "no step", "an LSTM needs at least one step, got a sequence of length 0"),
    ("GRU", "no step", "a GRU needs at least one step, got a sequence of length 0"),
    ("LSTM", "h without batch", "a batched 3-D input needs a 3-D hx, got (2-D, 3-D)"),
    ("GRU", "h without batch", "a batched 3-D input needs a 3-D hx, got (2-D)"),
    ("LSTM", "a batch of states, unbatched",
     "an unbatched 2-D input needs a 2-D hx, got (3-D, 3-D)"),
    ("LSTM", "h of other layers", "Expected hidden[0] size (2, 3, 6), got [1, 3, 6]"),
    ("GRU", "h of other layers", "Expected hidden size (2, 3, 6), got [1, 3, 6]"),
    ("LSTM", "c of another batch", "Expected hidden[1] size (2, 3, 6), got [2, 2, 6]"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fault", "text"), TEXTS, indirect=["kind"])
def test_the_texts(kind, fault: str, text: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as caught:
        kind.ours(D, H, 2, dropout=0.5)(*wrong(kind, fault))
    assert str(caught.value) == text


def test_proj_size_is_refused() -> None:
    with pytest.raises(NotImplementedError) as error:
        StructuredLSTM(D, H, proj_size=2)
    assert str(error.value) == (
        "proj_size=2 is not supported: use proj_size=0 and an nn.Linear behind the LSTM, or keep "
        "nn.LSTM for this layer"
    )


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "recurrent_dropout"])
def test_rates_are_checked(kind, name: str) -> None:
    with pytest.raises(ValueError, match=r"^dropout rate 1\.0 is outside \[0, 1\)"):
        kind.ours(D, H, **{name: 1.0})
    layer = kind.ours(D, H, **{name: 0.25})
    with pytest.raises(ValueError, match=r"^dropout rate -0\.5 is outside \[0, 1\)"):
        setattr(layer, name, -0.5)
    assert getattr(layer, name) == DropoutPattern(0.25)


def test_a_rate_between_layers_of_a_single_one(kind) -> None:
    """As torch's, ours warns of what drops nothing, and where the call stands."""
    with pytest.warns(UserWarning, match="num_layers") as theirs:
        kind.stock(D, H, 1, dropout=0.5)
    with pytest.warns(UserWarning, match="num_layers") as caught:
        kind.ours(D, H, 1, dropout=0.5)
    assert str(caught[0].message) == (
        "dropout=0.5 is between layers, and num_layers=1 has nothing between: it drops nothing; "
        "for the first layer's input use input_dropout, for the output StructuredDropout or "
        "MaskedLinear behind the layer"
    )
    assert len(caught) == len(theirs) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind.ours(D, H, 1, input_dropout=0.5, recurrent_dropout=0.5)
        kind.ours(D, H, 2, dropout=0.5)


@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_state_of_another_number_of_tensors(given: int, training: bool) -> None:
    lstm = StructuredLSTM(D, H, recurrent_dropout=0.5).train(training)
    with pytest.raises(RuntimeError) as error:
        lstm(torch.randn(T, B, D), (torch.zeros(1, B, H),) * given)
    assert str(error.value) == f"an LSTM needs an hx of 2 tensors, got {given}"


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("given", [tuple, list])
def test_a_gru_has_no_cell(given: type, training: bool) -> None:
    gru = StructuredGRU(D, H, recurrent_dropout=0.5).train(training)
    cell = StructuredGRUCell(D, H, recurrent_dropout=0.5).train(training)
    h = torch.zeros(1, B, H)
    for run in (lambda: gru(torch.randn(T, B, D), given([h, h])),
                lambda: cell(torch.randn(B, D), given([h[0], h[0]]))):  # fmt: skip
        with pytest.raises(TypeError) as error:
            run()
        assert str(error.value) == (
            f"hx of a GRU must be one tensor, its h, got {given.__name__}: there is no cell"
        )
