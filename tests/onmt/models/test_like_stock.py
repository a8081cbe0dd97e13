"""Where nothing is dropped, the plugin's encoder and decoders are stock's; else engines agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opennmt_sd import ops

feeds = pytest.mark.parametrize("option", ["input feed", "no input feed"])
cells = pytest.mark.parametrize("option", ["input feed", "no input feed", "GRU", "GRU, no feed"])
encoders = pytest.mark.parametrize("encoder", ["rnn", "brnn"])
STOCK_FAILS = {"gate source, bridge, no feed"}  # it views an output that is not contiguous


@encoders
def test_is_stock_where_nothing_is_dropped(nmt, option: str, encoder: str) -> None:
    stock = nmt.build(encoder, "rnn", **nmt.OPTIONS[option]).double()
    ours = nmt.build(f"sd_{encoder}", "sd_rnn", **nmt.OPTIONS[option]).double()
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, weight in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), f"{name}: one seed, one model"
    if option in STOCK_FAILS:
        with pytest.raises(RuntimeError, match="view"):
            nmt.loss(stock)
        nmt.step(ours)
        return
    nmt.compare(nmt.step(ours), nmt.step(stock))


@encoders
def test_evaluation_is_stocks_bit_for_bit(nmt, option: str, encoder: str) -> None:
    """Whatever the rates."""
    if option in STOCK_FAILS:
        option = "no input feed"
    stock = nmt.build(encoder, "rnn", **nmt.OPTIONS[option]).eval()
    rates = nmt.rated("III", **nmt.RATES)
    ours = nmt.build(f"sd_{encoder}", "sd_rnn", dropout=0.5, **nmt.OPTIONS[option], **rates).eval()
    with torch.no_grad():
        given = nmt.batch()
        arguments = (given["src"], given["tgt"], given["srclen"])
        want, want_attentions = stock(*arguments)
        got, attentions = ours(*arguments)
    assert torch.equal(got, want)
    assert attentions.keys() == want_attentions.keys()
    for name, attention in want_attentions.items():
        assert torch.equal(attentions[name], attention), name


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [("brnn", "sd_rnn"), ("sd_brnn", "rnn"), ("rnn", "sd_rnn"), ("sd_rnn", "rnn")],
)
@feeds
def test_ours_beside_stocks(nmt, encoder: str, decoder: str, option: str) -> None:
    stock = nmt.build(encoder.removeprefix("sd_"), "rnn", **nmt.OPTIONS[option]).double()
    nmt.compare(
        nmt.step(nmt.build(encoder, decoder, **nmt.OPTIONS[option]).double()), nmt.step(stock)
    )


@cells
def test_state_dicts_go_both_ways(nmt, option: str) -> None:
    stock = nmt.build("brnn", "rnn", seed=1, **nmt.OPTIONS[option])
    ours = nmt.build(
        "sd_brnn", "sd_rnn", seed=2, **nmt.OPTIONS[option], **nmt.rated("III", **nmt.RATES)
    )
    before = {n: w.clone() for n, w in ours.state_dict().items()}
    nn.Module.load_state_dict(ours, stock.state_dict(), strict=True)
    nn.Module.load_state_dict(stock, before, strict=True)
    for name, weight in before.items():
        assert torch.equal(stock.state_dict()[name], weight), name


@pytest.mark.slow
def test_engines_agree(nmt, option: str, case: str, engines: list[str]) -> None:
    # Every option in every case, and both of these with either encoder.
    number = list(nmt.OPTIONS).index(option) + list(nmt.CASES).index(case)
    options = {**nmt.OPTIONS[option], **nmt.rated(case, **nmt.RATES)}
    model = nmt.build(("sd_rnn", "sd_brnn")[number % 2], "sd_rnn", **options).double()
    with ops.use("naive"):
        want, other = nmt.step(model), nmt.step(model, seed=4)
    assert not all(torch.equal(other[n], want[n]) for n in want), "something is dropped at all"
    for engine in engines:
        with ops.use(engine):
            nmt.compare(nmt.step(model), want)
