"""``convert`` of chosen modules, at rates by name; what ``conversion_report`` tells of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opennmt_sd import (
    DropoutPattern,
    StructuredGRU,
    StructuredLSTM,
    StructuredLSTMCell,
    conversion_report,
    convert,
    revert,
)

T, B, D, H = 5, 3, 4, 6


class Own(nn.LSTM):
    """A subclass, as models have them."""


class Model(nn.Module):
    """All that others put recurrent layers into."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({
            "word": nn.LSTM(D, H, 2, dropout=0.3), "char": nn.GRU(D, H),
        })  # fmt: skip
        self.decoder = nn.ModuleDict({"cell": nn.LSTMCell(H, H), "rnn": nn.LSTM(H, H)})
        self.tied = self.encoder["word"]
        self.own, self.plain = Own(D, H), nn.RNN(D, H)


def converted(model: nn.Module) -> list[str]:
    return conversion_report(model).converted


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (None, ["encoder.word", "encoder.char", "decoder.cell", "decoder.rnn"]),
        ("encoder.word", ["encoder.word"]),
        ("tied", ["encoder.word"]),  # another name of it
        ("encoder", ["encoder.word", "encoder.char"]),
        (["decoder", "encoder.char"], ["encoder.char", "decoder.cell", "decoder.rnn"]),
        ("*.rnn", ["decoder.rnn"]),
        ({"encoder.char", "decoder.rnn"}, ["encoder.char", "decoder.rnn"]),
        ([], []),
        (nn.LSTM, ["encoder.word", "decoder.rnn"]),
        (lambda name, module: "char" in name or module.input_size == H,
         ["encoder.char", "decoder.cell", "decoder.rnn"]),
        (lambda name, _: name == "tied", ["encoder.word"]),
    ],
)  # fmt: skip
def test_only_some(only: Any, names: list[str]) -> None:
    model = Model()
    before = [type(module) for module in model.modules()]
    convert(model, only=only)
    assert converted(model) == names
    assert type(model.own) is Own
    revert(model)
    assert [type(module) for module in model.modules()] == before


def test_rates_by_name() -> None:
    """The longest name counts; what has no name here gets the default."""
    fixed = DropoutPattern(0.5, time="fixed")
    model = convert(
        Model(),
        input_dropout={"encoder": 0.4, "encoder.char": 0.1},
        recurrent_dropout={"*.word": fixed, "decoder.cell": 0.2, "decoder.rnn": None},
        dropout={"encoder.word": 0.0},
    )
    word, char = model.encoder["word"], model.encoder["char"]
    cell, rnn = model.decoder["cell"], model.decoder["rnn"]
    assert (word.input_dropout, char.input_dropout, rnn.input_dropout) == (0.4, 0.1, 0.0)
    assert (word.recurrent_dropout, char.recurrent_dropout) == (fixed, 0.0)
    assert (cell.input_dropout, cell.recurrent_dropout, rnn.recurrent_dropout) == (0.0, 0.2, 0.0)
    assert (word.dropout, rnn.dropout) == (0.0, 0.0)
    with pytest.warns(UserWarning, match=r"dropout=0\.1 of 'decoder\.rnn' is between layers, and"):
        model = convert(Model(), dropout={"decoder.rnn": 0.1})
    assert model.encoder["word"].dropout == 0.3


def test_packed_sequences_on_the_kernels() -> None:
    """As ``layer.exact = False``, of every layer that is chosen; ``revert`` takes it away."""
    model = convert(Model(), exact=False, only=["encoder", "decoder.cell"])
    assert not model.encoder["word"].exact
    assert not model.encoder["char"].exact
    assert not hasattr(model.decoder["cell"], "exact")
    assert conversion_report(model).modules[1].why == (
        "nothing is dropped: it runs as torch's own, and packed on the CPU's kernels"
    )
    revert(model)
    assert "exact" not in vars(model.encoder["word"])
    convert(model)
    assert model.encoder["word"].exact


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a name misspelt": (
        {"only": ["encoder", "decoder.rn"]}, ValueError,
        "only: 'decoder.rn' names no module to convert: did you mean 'decoder.rnn'?",
    ),
    "a rate for a name misspelt": (
        {"input_dropout": {"encodr.word": 0.3}}, ValueError,
        "input_dropout: 'encodr.word' names no module to convert: did you mean 'encoder.word'?",
    ),
    "a subclass": (
        {"only": "own"}, ValueError,
        "only: 'own' names no module to convert: it is a subclass of nn.LSTM, with a forward of "
        "its own",
    ),
    "another kind": (
        {"recurrent_dropout": {"plain": 0.3}}, ValueError,
        "recurrent_dropout: 'plain' names no module to convert: there is structured dropout for "
        "LSTM and GRU, and not for this",
    ),
    "a rate for one that is not chosen": (
        {"only": "decoder", "input_dropout": {"encoder": 0.3}}, ValueError,
        "input_dropout: 'encoder' names no module to convert: it is not among those of only",
    ),
    "between the layers of a cell": (
        {"dropout": {"decoder.cell": 0.3}}, ValueError,
        "dropout: 'decoder.cell' names no module to convert: a cell has no layers to drop between",
    ),
    "a fixed set for a cell by name": (
        {"input_dropout": {"decoder": DropoutPattern(0.3, time="fixed")}}, ValueError,
        'input_dropout with time="fixed" cannot be given to an nn.LSTMCell: a cell does not know '
        'where a sequence begins. Use time="random", or convert the other modules alone, with '
        "only=, and build a StructuredLSTMCell",
    ),
    "a rate out of range": (
        {"input_dropout": {"encoder": 1.5}}, ValueError,
        "dropout rate 1.5 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ),
    "a module for a name": (
        {"only": [1]}, TypeError, "only takes the names of modules, got 1",
    ),
    "a choice that is none": (
        {"if_unsupported": "skip"}, ValueError,
        "if_unsupported must be 'refuse' or 'leave', got 'skip'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant(given: dict[str, Any], error: type[Exception], text: str) -> None:
    model = Model()
    before = [(type(m), dict(vars(m))) for m in model.modules()]
    with pytest.raises(error) as refusal:
        convert(model, **given)
    assert str(refusal.value) == text
    assert [(type(m), dict(vars(m))) for m in model.modules()] == before


def test_naming_what_is_converted_already() -> None:
    """A notebook's cell may run twice; a rate that would not be taken is reported."""
    model = convert(Model(), only="encoder", input_dropout=0.3)
    with pytest.warns(UserWarning, match="input_dropout=0.5 reaches no module: none is left"):
        convert(model, only="encoder", input_dropout=0.5)
    assert model.encoder["word"].input_dropout == 0.3
    with pytest.raises(ValueError) as refusal:
        convert(model, input_dropout={"encoder.word": 0.5})
    assert str(refusal.value) == (
        "input_dropout: 'encoder.word' names no module to convert: it is converted already: set "
        "the attribute of that name instead"
    )


def unsupported() -> nn.ModuleDict:
    return nn.ModuleDict({
        "projected": nn.LSTM(D, H, proj_size=2), "fine": nn.LSTM(D, H),
        "normed": nn.utils.parametrizations.weight_norm(nn.GRU(D, H), "weight_hh_l0"),
    })  # fmt: skip


def test_what_is_not_supported_may_be_left() -> None:
    model = unsupported()
    with pytest.raises(NotImplementedError, match=r"^projected: an nn\.LSTM with proj_size=2 is"):
        convert(model)
    before = {name: type(module) for name, module in model.items()}
    assert convert(model, only="fine") is model
    revert(model)
    convert(model, if_unsupported="leave")
    assert {n: type(m) for n, m in model.items()} == {**before, "fine": StructuredLSTM}
    report = conversion_report(model)
    assert report.converted == ["fine"]
    assert report.left == {
        "projected": "with proj_size=2 is not supported: use proj_size=0 and an nn.Linear behind "
        "the LSTM",
        "normed": "with parametrized weights is not supported: convert the model first, then "
        "register the parametrizations",
    }


def test_a_subclass_is_left_whatever_it_has() -> None:
    """A projection in it is its own business."""
    model = nn.Sequential(Own(D, H, proj_size=2), nn.LSTM(D, H))
    convert(model)
    assert [type(m) for m in model] == [Own, StructuredLSTM]


def test_a_report_before_and_after() -> None:
    model = Model()
    assert str(conversion_report(model)) == "\n".join([
        "encoder.word: nn.LSTM: convertible: convert would take it",
        "encoder.char: nn.GRU: convertible: convert would take it",
        "decoder.cell: nn.LSTMCell: convertible: convert would take it",
        "decoder.rnn: nn.LSTM: convertible: convert would take it",
        "own: Own: left: it is a subclass of nn.LSTM, with a forward of its own",
        "plain: nn.RNN: left: there is structured dropout for LSTM and GRU, and not for this",
    ])  # fmt: skip
    report = conversion_report(model)
    assert report.convertible == ["encoder.word", "encoder.char", "decoder.cell", "decoder.rnn"]
    assert report.converted == []
    with pytest.warns(UserWarning, match=r"dropout=0\.2 of 'encoder\.char' is between layers, and"):
        convert(model, only=report.convertible[:3], dropout={"encoder.char": 0.2},
                input_dropout={"encoder.word": 0.4}, recurrent_dropout={"encoder.word":
                DropoutPattern(0.5, space="random", time="fixed")})  # fmt: skip
    assert str(conversion_report(model)) == "\n".join([
        "encoder.word: StructuredLSTM: converted: input_dropout 0.4 structured/random; dropout 0.3 "
        "structured/random; recurrent_dropout 0.5 random/fixed",
        "encoder.char: StructuredGRU: converted: dropout 0.2 structured/random; dropout is between "
        "layers, and there is one: it drops nothing",
        "decoder.cell: StructuredLSTMCell: converted: nothing is dropped: it runs as torch's own",
        "decoder.rnn: nn.LSTM: convertible: convert would take it",
        "own: Own: left: it is a subclass of nn.LSTM, with a forward of its own",
        "plain: nn.RNN: left: there is structured dropout for LSTM and GRU, and not for this",
    ])  # fmt: skip


def test_a_report_of_other_models() -> None:
    assert str(conversion_report(nn.Linear(2, 3))) == "no recurrent modules"
    alone = conversion_report(nn.LSTM(D, H))
    assert str(alone) == "(the model): nn.LSTM: convertible: convert would take it"
    replaced = nn.Sequential(nn.LSTM(D, H))
    replaced[0].forward = replaced[0].forward
    convert(replaced)
    why = {"0": "its forward has been replaced by another: convert the model before"}
    assert conversion_report(replaced).left == why
    assert type(replaced[0]) is nn.LSTM


@pytest.mark.filterwarnings("ignore:.*jit.*deprecated", "ignore:.*TorchScript.*")
def test_a_report_of_torchscript() -> None:
    scripted = nn.Sequential(torch.jit.script(nn.LSTM(D, H)), nn.LSTM(D, H))
    convert(scripted)
    report = conversion_report(scripted)
    assert report.converted == ["1"]
    assert report.left == {"0": "it is TorchScript already: convert the model before"}


def test_the_classes_that_come_of_it() -> None:
    model = convert(Model())
    kinds = [type(m) for m in (model.encoder["word"], model.encoder["char"], model.decoder["cell"])]
    assert kinds == [StructuredLSTM, StructuredGRU, StructuredLSTMCell]
