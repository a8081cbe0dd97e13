"""The plugin's encoder and decoders drop what stock drops with the same masks put in by hand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd.dropout import Keep, KeepMask

B, S, T, H = 5, 9, 7, 12


class Player(nn.Module):
    """Stands where stock has a dropout layer, and applies the given masks call by call."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = iter(masks)
        self.raw: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.raw.append(x)
        return x * next(self.masks)


def play(
    nmt, stock: Any, case: str, drawn: dict[float, list[Keep]], layers: int, feed: bool
) -> None:
    """Make stock's decoder drop exactly what was drawn."""
    (emb,), (out, *fed) = drawn[nmt.RATES["tgt_embedding"]], drawn[nmt.RATES["output"]]
    stock.embeddings.register_forward_hook(
        lambda module, args, y: y * nmt.masks(emb).transpose(0, 1)
    )
    between = [nmt.masks(k) for k in drawn[nmt.RATES["decoder"]]]
    state = [nmt.masks(k) for k in drawn[nmt.RATES["recurrent"]]]
    assert (len(between), len(state)) == (layers - 1, layers)
    if not feed:
        stock.dropout = Player([nmt.output_masks(case, out).transpose(0, 1)])
        return
    if case in nmt.STAGGERED:
        play_apart(stock, nmt.output_masks(case, out), nmt.masks(*fed))
    else:
        assert not fed
        stock.dropout = Player(list(nmt.masks(out)))
    stock.rnn.dropout = Player([m[t] for t in range(T) for m in between])
    for layer, mask in zip(stock.rnn.layers, state):
        calls = iter(mask)
        if isinstance(layer, nn.GRUCell):
            layer.forward = functools.partial(gru_step, layer, calls)
            continue

        def drop_state(module: nn.Module, args: Any, calls: Iterator[Tensor] = calls) -> Any:
            x, (h, c) = args
            return x, (h * next(calls), c)

        layer.register_forward_pre_hook(drop_state)


def play_apart(stock: Any, out: Tensor, fed: Tensor) -> None:
    """What is fed is dropped as by step, and what is put out by masks of its own."""
    stock.dropout = Player(list(fed))

    def put_out(module: Any, args: Any, result: Any) -> Any:
        whole = torch.stack(stock.dropout.raw) * out  # [T, B, H]
        module.state["input_feed"] = whole[-1:]
        return whole.transpose(0, 1), result[1]

    stock.register_forward_hook(put_out)


def gru_step(layer: nn.GRUCell, calls: Iterator[Tensor], x: Tensor, h: Tensor) -> Tensor:
    """Take torch's step, with the state dropped in its product alone."""
    r_x, z_x, n_x = nn.functional.linear(x, layer.weight_ih, layer.bias_ih).chunk(3, 1)
    kept = h * next(calls)
    r_h, z_h, n_h = nn.functional.linear(kept, layer.weight_hh, layer.bias_hh).chunk(3, 1)
    z = torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h


def decode(nmt, decoder: Any, layers: int, *, gru: bool = False) -> dict[str, Any]:
    """One training forward and backward of a decoder alone, on a made-up source."""
    g = torch.Generator().manual_seed(2)
    enc_out, h, c = (
        torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True)
        for s in ((B, S, H), (layers, B, H), (layers, B, H))
    )
    given = nmt.batch(padded=False)  # of a target's end, stock leaves another state behind
    decoder.zero_grad()
    decoder.init_state(given["src"], enc_out, h if gru else (h, c))
    y, attentions = decoder(given["tgt"], enc_out, src_len=given["srclen"])
    cotangent = torch.randn(y.shape, generator=g, dtype=torch.float64)
    total = (y * cotangent).sum() + sum(a.square().sum() for a in attentions.values())
    total.backward()
    return {
        "output": y.detach(), "enc_out": enc_out.grad, "h": h.grad,
        **({} if gru else {"c": c.grad}),
        **{f"attention {n}": a.detach() for n, a in attentions.items()},
        **{n: p.grad for n, p in decoder.named_parameters() if p.grad is not None},
        **{f"state {n}": s for n, s in states(decoder).items()},
    }  # fmt: skip


def states(decoder: Any) -> dict[str, Tensor]:
    """What the next chunk of a target starts from."""
    state = dict(zip("hc", decoder.state["hidden"]))
    for name in ("input_feed", "coverage"):
        if decoder.state.get(name) is not None:
            state[name] = decoder.state[name]
    return {n: s.detach() for n, s in state.items()}


def test_the_input_feed_decoder_is_stocks_with_masks(
    nmt, fed_option: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    """Every place of the decoder, the fed output and the state among them."""
    options = nmt.OPTIONS[fed_option]
    layers = options.get("dec_layers", options.get("layers", 2))
    given = options.get("enc_layers", layers)
    ours = nmt.build("sd_rnn", "sd_rnn", **options, **nmt.rated(case, **nmt.RATES)).decoder.double()
    stock = nmt.build("rnn", "rnn", **options).decoder.double()
    gru = options.get("rnn_type") == "GRU"
    got = decode(nmt, ours, given, gru=gru)
    play(nmt, stock, case, drawn, layers, feed=True)
    nmt.compare(got, decode(nmt, stock, given, gru=gru))


@pytest.mark.parametrize(
    ("gate", "cell"), [*((g, "LSTM") for g in (None, "source", "target", "both")), ("both", "GRU")]
)
def test_the_decoder_without_feed_drops_around_its_rnn(
    nmt, case: str, gate: str | None, cell: str, drawn: dict[float, list[Keep]]
) -> None:
    """Its RNN is one of ours, which has tests of its own; here it drops nothing."""
    options = {"input_feed": 0, "rnn_type": cell, **({"context_gate": gate} if gate else {})}
    around = {p: nmt.RATES[p] for p in ("tgt_embedding", "output")}
    ours = nmt.build("sd_rnn", "sd_rnn", **options, **nmt.rated(case, **around)).decoder.double()
    stock = nmt.build("rnn", "rnn", **options).decoder.double()
    got = decode(nmt, ours, 2, gru=cell == "GRU")
    (emb,), (out,) = drawn[nmt.RATES["tgt_embedding"]], drawn[nmt.RATES["output"]]
    stock.embeddings.register_forward_hook(
        lambda module, args, y: y * nmt.masks(emb).transpose(0, 1)
    )
    stock.dropout = Player([nmt.output_masks(case, out).transpose(0, 1)])
    # Stock views the RNN's output for the gate, which only works on a contiguous one.
    stock.rnn.register_forward_hook(lambda module, args, y: (y[0].contiguous(), y[1]))
    nmt.compare(got, decode(nmt, stock, 2, gru=cell == "GRU"))


@pytest.mark.parametrize(("encoder", "cell"), [("rnn", "LSTM"), ("brnn", "LSTM"), ("brnn", "GRU")])
def test_the_encoder_drops_its_embeddings(
    nmt, encoder: str, cell: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    options = nmt.rated(case, src_embedding=nmt.RATES["src_embedding"])
    ours = nmt.build(f"sd_{encoder}", "sd_rnn", rnn_type=cell, **options).encoder.double()
    stock = nmt.build(encoder, "rnn", rnn_type=cell).encoder.double()
    given = nmt.batch()
    got, got_state, _ = ours(given["src"], given["srclen"])
    (keep,) = drawn[nmt.RATES["src_embedding"]]
    if isinstance(keep, KeepMask):  # its rows are those of the batch sorted by length
        order = torch.argsort(given["srclen"], descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(
            torch.zeros(B, S, 1), given["srclen"], batch_first=True, enforce_sorted=False
        )
        assert torch.equal(given["srclen"][packed.sorted_indices], given["srclen"][order])
        keep = KeepMask(keep.mask()[:, packed.unsorted_indices], keep.scale)
    stock.embeddings.register_forward_hook(
        lambda module, args, y: y * nmt.masks(keep, S).transpose(0, 1)
    )
    want, want_state, _ = stock(given["src"], given["srclen"])
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_state, want_state)
    got.square().sum().backward()
    want.square().sum().backward()
    nmt.compare(*({n: p.grad for n, p in m.named_parameters()} for m in (ours, stock)))
