"""The model against the same one in plain torch, and every pattern at every place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.nn import revert
from opennmt_sd.tagger.model import TaggerConfig
from opennmt_sd.tagger.reference import PlainTagger
from opennmt_sd.tagger.task import TaggerTask

Make = Callable[..., TaggerTask]

SHAPES = {
    "cnn crf": {},
    "lstm crf": {"chars": "lstm", "projection": 6},
    "words softmax": {"chars": "none", "head": "softmax"},
    "two layers": {"layers": 2},
    "gru": {"cell": "gru", "layers": 2, "chars": "lstm"},
}
CASES = {
    "I": ("random", "random"),
    "II": ("random", "fixed"),
    "III": ("structured", "random"),
    "IV": ("structured", "fixed"),
}
PLACES = ("input_dropout", "dropout", "output_dropout", "recurrent_dropout")


def grads(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES)
def test_without_dropout_it_is_the_plain_model(make: Make, shape: str) -> None:
    task = make(**SHAPES[shape])
    plain = PlainTagger(task.model.config, task.vocabulary)
    assert plain.state_dict().keys() == task.model.state_dict().keys()
    plain.load_state_dict(task.model.state_dict())
    for batch in task.batches(0):
        with ops.use("naive"):  # our own engine, which without dropout would leave it to torch
            loss, expected = task.model(batch), plain(batch)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        expected.backward()
        assert torch.equal(task.model.decode(batch), plain.decode(batch))
    ours = grads(task.model)
    assert ours.keys() == grads(plain).keys() == dict(task.model.named_parameters()).keys()
    for name, grad in grads(plain).items():
        torch.testing.assert_close(ours[name], grad, msg=name)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES)
def test_every_case_at_every_place(make: Make, place: str, case: str, cell: str) -> None:
    """Dropped in training alike on every engine, gradients too; not at all in evaluation."""
    task = make(layers=2, cell=cell, **{place: DropoutPattern(0.5, *CASES[case])})
    model, batch = task.model, task.batches(0)[0]
    assert getattr(model.config, place) == DropoutPattern(0.5, *CASES[case])
    found = {}
    for engine in ("naive", "auto"):
        torch.manual_seed(7)
        model.zero_grad()
        with ops.use(engine):
            loss = model(batch)
            loss.backward()
        found[engine] = {"loss": loss.detach(), **grads(model)}
    for name, value in found["naive"].items():
        torch.testing.assert_close(found["auto"][name], value, msg=name)
    whole = model.eval()(batch)
    assert not torch.isclose(whole, found["auto"]["loss"])
    assert torch.equal(model(batch), whole)


def test_the_tag_projection_skips_dropped_units(make: Make) -> None:
    task = make(output_dropout=DropoutPattern(0.8, time="fixed"))
    torch.manual_seed(0)
    task.model(task.batches(0)[0]).backward()
    weight_grad = task.model.output.weight.grad
    dropped = (weight_grad == 0).all(0)
    assert 10 < int(dropped.sum()) < 20  # of 20 units, four in five


def test_padding_and_company_change_nothing(make: Make) -> None:
    """A sentence's scores are the same alone and beside a longer one."""
    model = make().model.eval()
    task = make()
    encoded = task._train
    both = encoded.batch([2, 1])
    alone = encoded.batch([2])
    assert both.order == [1, 2]
    begins = [0, *both.sizes.cumsum(0).tolist()]
    rows = [begins[t] + 1 for t in range(len(alone.words))]
    torch.testing.assert_close(model.scores(both)[rows], model.scores(alone))


def test_5000_words(make: Make) -> None:
    task = make()
    encoded = type(task._train)(
        task.vocabulary, [["Peter", "met"] * 2_500], task.model.chars.layout, [["O"] * 5_000]
    )
    batch = encoded.batch([0])
    loss = task.model(batch)
    assert torch.isfinite(loss)
    loss.backward()
    assert len(task.model.decode(batch)) == 5_000


def test_first_values(make: Make) -> None:
    model = make().model
    H = model.lstm.hidden_size
    assert torch.equal(model.lstm.bias_ih_l0[H : 2 * H], torch.ones(H))  # forget gates
    assert not model.lstm.bias_hh_l0.any()
    bound = (6 / (4 * H + H)) ** 0.5
    assert 0.9 * bound < model.lstm.weight_hh_l0.abs().max() <= bound
    assert not model.chars.embedding.weight[0].any()


def test_first_values_of_a_gru(make: Make) -> None:
    """It has no forget gate; an LSTM that reads its characters has."""
    model = make(cell="gru", chars="lstm").model
    assert not any(p.any() for name, p in model.gru.named_parameters() if "bias" in name)
    H = model.chars.lstm.hidden_size
    assert model.chars.lstm.bias_ih_l0.tolist() == [0] * H + [1] * H + [0] * 2 * H


def test_a_batch_without_tags_has_no_loss(make: Make) -> None:
    task = make()
    with pytest.raises(ValueError, match="the batch has no tags: a loss needs them"):
        task.model(task.batches(0)[0]._replace(tags=None))


def test_config_tells_every_fault() -> None:
    with pytest.raises(ValueError) as error:
        TaggerConfig(word_dim=0, chars="rnn", cell="rnn", head="svm", char_dropout=1.0)
    assert str(error.value).split("\n") == [
        "word_dim must be at least 1, got 0",
        "chars 'rnn' is unknown: use one of cnn, lstm, none",
        "cell 'rnn' is unknown: use one of lstm, gru",
        "head 'svm' is unknown: use one of crf, softmax",
        "char_dropout 1.0 is outside [0, 1): it is the share of units dropped; 0 drops nothing",
    ]
    with pytest.raises(ValueError, match="char_window must be odd for chars=cnn, got 4"):
        TaggerConfig(char_window=4)
    with pytest.raises(ValueError, match="char_width must be even for chars=lstm, got 5"):
        TaggerConfig(chars="lstm", char_width=5)
    with pytest.raises(ValueError, match="unknown: hiden; known: "):
        TaggerConfig.from_dict({"hiden": 3})


def test_config_goes_both_ways(small: Callable[..., TaggerConfig]) -> None:
    fixed = DropoutPattern(0.2, "random", "fixed")
    config = small(cell="gru", input_dropout=0.3, recurrent_dropout=fixed)
    assert config.input_dropout == DropoutPattern(0.3)
    assert TaggerConfig.from_dict(config.to_dict()) == config
    before = {name: value for name, value in config.to_dict().items() if name != "cell"}
    assert TaggerConfig.from_dict(before).cell == "lstm"  # of before there was a choice


@pytest.mark.parametrize("shape", SHAPES)
def test_reverted_it_predicts_the_same(make: Make, shape: str) -> None:
    task = make(**SHAPES[shape], output_dropout=DropoutPattern(0.5))
    model = task.model.eval()
    batches = task.batches(0)
    with torch.no_grad():
        expected = [model.scores(batch) for batch in batches]
        revert(model)
        found = [model.scores(batch) for batch in batches]
    torch.testing.assert_close(found, expected)
    assert not [m for m in model.modules() if type(m).__module__.startswith("opennmt_sd.nn")]
    model.train()(batches[0]).backward()
    assert grads(model).keys() == dict(model.named_parameters()).keys()


def test_the_plain_models_layers_are_torchs_own(make: Make) -> None:
    """It is the baseline of the benchmark."""
    task = make(chars="lstm")
    plain = PlainTagger(task.model.config, task.vocabulary)
    assert {type(m) for m in plain.modules() if isinstance(m, nn.RNNBase)} == {nn.LSTM}
