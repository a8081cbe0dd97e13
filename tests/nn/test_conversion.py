"""``convert`` and ``revert``: classes change, everything else stays where it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
    convert,
    revert,
)

T, B, D, H = 5, 3, 4, 6


class Model(nn.Module):
    """Two LSTMs, one of them twice, at different depths; a GRU, and a cell of each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"rnn": nn.LSTM(D, H, 2, dropout=0.3, bidirectional=True)})
        self.decoder = nn.Sequential(nn.LSTM(2 * H, H, batch_first=True))
        self.alias = self.encoder["rnn"]
        self.gru = nn.GRU(H, H, 2, dropout=0.2)
        self.cells = nn.ModuleList([nn.LSTMCell(H, H), nn.GRUCell(H, H)])
        self.plain = nn.ModuleList([nn.RNN(H, H), nn.RNNCell(H, H)])
        self.out = nn.Linear(H, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.encoder["rnn"](x)
        y, _ = self.gru(self.decoder(y)[0])
        h, _ = self.cells[0](y[-1])
        return self.out(y) + self.out(self.cells[1](h))


OURS = {nn.LSTM: StructuredLSTM, nn.GRU: StructuredGRU,
        nn.LSTMCell: StructuredLSTMCell, nn.GRUCell: StructuredGRUCell}  # fmt: skip


def test_everything_that_ours_stand_for_is_converted() -> None:
    """And nothing else."""
    model = Model()
    before = [type(m) for m in model.modules()]
    assert convert(model) is model
    assert [type(m) for m in model.modules()] == [OURS.get(t, t) for t in before]
    assert before.count(nn.LSTM) == 2
    assert type(model.alias) is StructuredLSTM
    assert revert(model) is model
    assert [type(m) for m in model.modules()] == before


@pytest.mark.parametrize("stock", OURS)
def test_the_model_may_be_one_itself(stock: type[nn.Module]) -> None:
    module = stock(D, H)
    assert convert(module) is module
    assert type(module) is OURS[stock]
    assert revert(module) is module
    assert type(module) is stock


def test_nothing_is_replaced() -> None:
    """Modules, parameters, hooks and the optimizer's references are the same objects."""
    model = Model()
    modules, parameters = list(model.modules()), list(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    calls: list[str] = []
    model.alias.register_forward_hook(lambda *_: calls.append("hook"))
    for swap in (convert, revert):
        swap(model)
        assert [a is b for a, b in zip(modules, model.modules(), strict=True)] == [True] * len(
            modules
        )
        now = list(model.named_parameters())
        assert [n for n, _ in now] == [n for n, _ in parameters]
        assert all(a is b for (_, a), (_, b) in zip(now, parameters))
        before = model.alias.weight_hh_l0.detach().clone()
        model(torch.randn(T, B, D)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert not torch.equal(model.alias.weight_hh_l0, before)
    assert calls == ["hook", "hook"]


def test_rates_and_places() -> None:
    """By default the rate that was there, as case III, and nothing new."""
    model = convert(Model())
    assert model.alias.dropout == DropoutPattern(0.3)
    assert model.decoder[0].dropout == DropoutPattern(0.0)
    assert not model.alias.input_dropout.active
    assert not model.alias.recurrent_dropout.active
    assert model.gru.dropout == DropoutPattern(0.2)
    model = convert(Model(), dropout=DropoutPattern(0.2, time="fixed"), input_dropout=0.4,
                    recurrent_dropout=0.1)  # fmt: skip
    for layer in (model.alias, model.decoder[0], model.gru):
        assert layer.dropout == DropoutPattern(0.2, time="fixed")
    for module in (model.alias, model.decoder[0], model.gru, *model.cells):
        assert module.input_dropout == DropoutPattern(0.4)
        assert module.recurrent_dropout == DropoutPattern(0.1)
    assert convert(Model(), dropout=0.0).alias.dropout == DropoutPattern(0.0)


def test_modes_and_flags_stay() -> None:
    model = Model().eval()
    model.alias.weight_ih_l0.requires_grad_(False)
    convert(model)
    assert not model.alias.training
    assert not model.alias.weight_ih_l0.requires_grad
    assert model.decoder[0].batch_first


def test_evaluation_stays_bit_for_bit() -> None:
    model = Model().eval()
    x = torch.randn(T, B, D)
    want = model(x)
    assert torch.equal(convert(model)(x), want)
    assert torch.equal(revert(model)(x), want)


def test_converted_is_built(kind) -> None:
    """A converted layer trains as one that was built as ours."""
    layer = kind.stock(D, H, 2, dropout=0.3)
    ours = kind.ours(D, H, 2, dropout=0.3, input_dropout=0.4, recurrent_dropout=0.5)
    ours.load_state_dict(layer.state_dict())
    convert(layer, input_dropout=0.4, recurrent_dropout=0.5)
    assert repr(layer) == repr(ours)
    x = torch.randn(T, B, D)
    torch.manual_seed(3)
    want = ours(x)[0]
    torch.manual_seed(3)
    assert torch.equal(layer(x)[0], want)


def test_a_converted_cell_is_built(kind) -> None:
    cell = kind.stock_cell(D, H)
    ours = kind.our_cell(D, H, input_dropout=0.4, recurrent_dropout=0.5)
    ours.load_state_dict(cell.state_dict())
    convert(cell, input_dropout=0.4, recurrent_dropout=0.5)
    assert vars(cell).keys() == vars(ours).keys()
    assert repr(cell) == repr(ours)
    x, results = torch.randn(B, D), []
    for module in (cell, ours):
        torch.manual_seed(3)
        results.append(kind.parts(module(x))[0])
    assert torch.equal(*results)


def test_a_round_trip_gives_torchs_back(kind) -> None:
    layer = kind.stock(D, H, 2, dropout=0.3, bidirectional=True)
    before = dict(vars(layer))
    revert(convert(layer, input_dropout=0.4, recurrent_dropout=0.5))
    assert type(layer) is kind.stock
    assert vars(layer).keys() == before.keys()
    assert layer.dropout == 0.3
    x = torch.randn(T, B, D)
    torch.manual_seed(3)
    got = layer(x)[0]
    fresh = kind.stock(D, H, 2, dropout=0.3, bidirectional=True)
    fresh.load_state_dict(layer.state_dict())
    torch.manual_seed(3)
    assert torch.equal(got, fresh(x)[0])
    assert not torch.equal(layer(x)[0], got), "torch's own dropout is on again"
    assert repr(layer) == repr(fresh)


def test_reverting_takes_the_present_rate_and_the_generator() -> None:
    lstm = convert(nn.LSTM(D, H, 2, dropout=0.3))
    lstm.dropout = 0.4
    lstm.generator = torch.Generator()
    revert(lstm)
    assert lstm.dropout == 0.4
    assert "generator" not in vars(lstm)
    copy.deepcopy(lstm)


ALONE: dict[str, tuple[nn.Module, nn.Module]] = {
    "cell": (StructuredLSTMCell(D, H, recurrent_dropout=0.3), nn.LSTMCell(D, H)),
    "GRU's cell": (StructuredGRUCell(D, H, recurrent_dropout=0.3), nn.GRUCell(D, H)),
    "linear": (MaskedLinear(D, H, dropout=0.4, batch_first=True), nn.Linear(D, H)),
    "dropout": (StructuredDropout(0.4, batch_first=True), nn.Dropout(0.4)),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_reverting_the_others(name: str, training: bool) -> None:
    """Nothing is left of ours: a reverted module is one that was built as torch's."""
    ours, theirs = (copy.deepcopy(module).train(training) for module in ALONE[name])
    theirs.load_state_dict(ours.state_dict())
    ours.generator = torch.Generator()
    assert revert(ours) is ours
    assert type(ours) is type(theirs)
    assert vars(ours).keys() == vars(theirs).keys()
    assert repr(ours) == repr(theirs)
    x = torch.randn(B, D)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(3)
        y = module(x)
        results.append(y[0] if isinstance(y, tuple) else y)
    assert torch.equal(*results)


def test_converting_twice_changes_nothing() -> None:
    model = convert(Model(), input_dropout=0.4)
    with pytest.warns(UserWarning, match="reaches no module") as told:
        convert(model, input_dropout=0.9, dropout=0.9, recurrent_dropout=0.0)
    assert [str(warning.message) for warning in told] == [
        f"{place}=0.9 reaches no module: none is left to convert: set the {place} of those that "
        "are converted, or revert the model first"
        for place in ("dropout", "input_dropout")
    ]
    assert model.alias.input_dropout == DropoutPattern(0.4)
    assert model.alias.dropout == DropoutPattern(0.3)


@pytest.mark.parametrize("rate", [0.4, DropoutPattern(0.4)])
def test_converting_twice_alike_is_silent(rate, recwarn) -> None:
    model = nn.ModuleList([nn.LSTM(D, H), nn.GRUCell(D, H)])
    for _ in range(2):
        convert(model, input_dropout=rate, recurrent_dropout=0.2)
    convert(model)
    assert not [*recwarn]


def test_rates_for_a_model_without_recurrent_modules_are_warned_of(recwarn) -> None:
    model = nn.Sequential(nn.Linear(D, H), nn.RNN(H, H))
    convert(model)
    assert not [*recwarn]
    convert(model, recurrent_dropout=0.3)
    assert str(recwarn.pop().message) == (
        "recurrent_dropout=0.3 reaches no module: there is nothing to convert; "
        "conversion_report(model) tells why"
    )


@pytest.mark.parametrize("build", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell])
def test_a_rate_between_layers_where_there_is_one_is_warned_of(build, recwarn) -> None:
    convert(nn.Sequential(build(D, H), nn.LSTM(D, H, 2)), dropout=0.3)
    convert(build(D, H), dropout=0.0)
    convert(build(D, H), input_dropout=0.3)
    assert not [*recwarn]
    convert(build(D, H), dropout=0.3)
    assert str(recwarn.pop().message) == (
        "dropout=0.3 is between layers, and no module that gets it has two: it drops nothing; for "
        "a first layer's input use input_dropout, for an output StructuredDropout or MaskedLinear "
        "behind it"
    )
    if issubclass(build, nn.RNNBase):
        model = nn.Sequential(build(D, H), nn.LSTM(D, H, 2))
        convert(model, dropout={"0": DropoutPattern(0.3), "1": 0.0})
        assert "dropout=0.3 of '0' is between layers" in str(recwarn.pop().message)
        model = nn.Sequential(build(D, H), nn.LSTM(D, H, 2))
        convert(model, dropout={"0": 0.3, "1": 0.3})
        assert "dropout=0.3 of '0' is between layers" in str(recwarn.pop().message)
        for rate, other in ((0.1, 0.0), (0.2, None)):  # texts that differ: one is said once
            model = nn.Sequential(build(D, H), nn.LSTM(D, H, 2))
            convert(model, dropout={"*": rate, "1": other})
            assert f"dropout={rate} of '*' is between layers" in str(recwarn.pop().message)
        convert(nn.Sequential(build(D, H, 2)), dropout={"*": 0.3})
        assert not [*recwarn]


def test_reverting_leaves_others_alone() -> None:
    model = Model()
    revert(model)
    assert type(model.alias) is nn.LSTM
    assert model.alias.dropout == 0.3


def test_a_subclass_is_left_alone() -> None:
    """Its forward is not ours to replace."""

    class Own(nn.LSTM):
        pass

    model = nn.Sequential(Own(D, H, 2, dropout=0.3), nn.LSTM(D, H))
    convert(model)
    assert [type(m) for m in model] == [Own, StructuredLSTM]
    assert model[0].dropout == 0.3
