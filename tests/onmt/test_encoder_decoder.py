"""The plugin's encoder and decoders against stock's: same weights, same places, fewer products."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onmt", reason="OpenNMT-py is not installed")

from torch.utils.flop_counter import FlopCounterMode

from opennmt_sd import DropoutPattern, StructuredGRU, StructuredLSTM, ops
from opennmt_sd.dropout import Keep, KeepMask
from opennmt_sd.ops.cpu import native
from opennmt_sd.ops.engines import ENGINES

SIZE = {"hidden_size": 12, "word_vec_size": 10, "layers": 2}
B, S, T, H, E = 5, 9, 7, 12, 10
WORDS = ["<unk>", "<blank>", "<s>", "</s>", *(f"w{i}" for i in range(60))]

# What an RNN translator may be built of; every option that changes the decoder's steps is in here.
OPTIONS: dict[str, dict[str, Any]] = {
    "input feed": {"input_feed": 1},
    "no input feed": {"input_feed": 0},
    "dot": {"input_feed": 1, "global_attention": "dot"},
    "mlp, coverage, gate both": {
        "input_feed": 1, "global_attention": "mlp", "coverage_attn": True, "context_gate": "both",
    },
    "gate source, bridge, no feed": {"input_feed": 0, "context_gate": "source", "bridge": True},
    "gate target": {"input_feed": 1, "context_gate": "target"},
    "no attention": {"input_feed": 1, "global_attention": "none"},
    "one layer": {"input_feed": 1, "layers": 1},
    "one layer, no feed": {"input_feed": 0, "layers": 1, "global_attention": "dot"},
    "three layers": {"input_feed": 1, "layers": 3},
    "fewer decoder layers": {"input_feed": 1, "layers": -1, "enc_layers": 3, "dec_layers": 2},
    "GRU": {"input_feed": 1, "rnn_type": "GRU"},
    "GRU, no feed": {"input_feed": 0, "rnn_type": "GRU"},
    "GRU, mlp, coverage, gate both, bridge, fewer decoder layers": {
        "input_feed": 1, "rnn_type": "GRU", "global_attention": "mlp", "coverage_attn": True,
        "context_gate": "both", "bridge": True, "layers": -1, "enc_layers": 3, "dec_layers": 2,
    },
}  # fmt: skip
STOCK_FAILS = {"gate source, bridge, no feed"}  # it views an output that is not contiguous
CASES = {"I": ("random", "random"), "II": ("random", "fixed"),
         "III": ("structured", "random"), "IV": ("structured", "fixed")}  # fmt: skip
# A rate for each place tells the draws apart.
RATES = {"src_embedding": 0.2, "encoder": 0.25, "tgt_embedding": 0.3, "decoder": 0.35,
         "output": 0.4, "recurrent": 0.45}  # fmt: skip

every_option = pytest.mark.parametrize("option", OPTIONS)
every_case = pytest.mark.parametrize("case", CASES)
feeds = pytest.mark.parametrize("option", ["input feed", "no input feed"])
cells = pytest.mark.parametrize("option", ["input feed", "no input feed", "GRU", "GRU, no feed"])
encoders = pytest.mark.parametrize("encoder", ["rnn", "brnn"])

Build = Callable[..., Any]


@pytest.fixture(autouse=True)
def automatic_engine() -> Iterator[None]:
    ops.use("auto")
    yield
    ops.use("auto")


@pytest.fixture(params=sorted(set(ENGINES) - {"naive"}))
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu" and native() is None:
        pytest.skip("the native module was not built")
    return request.param


@pytest.fixture(scope="module")
def build(plugin: None) -> Build:
    """Models as stock builds them, every weight drawn as ``param_init`` does it."""
    from onmt import opts
    from onmt.inputters.inputter import dict_to_vocabs
    from onmt.model_builder import build_base_model
    from onmt.utils.parse import ArgumentParser

    vocabs = dict_to_vocabs(
        {"src": WORDS, "tgt": WORDS, "data_task": "seq2seq", "decoder_start_token": "<s>"}
    )

    def build(encoder: str, decoder: str, seed: int = 0, **options: Any) -> Any:
        parser = ArgumentParser()
        opts.train_opts(parser)
        given = ["-data", "{}", "-src_vocab", "none", "-save_model", "none"]
        for name, value in {"encoder_type": encoder, "decoder_type": decoder, "dropout": 0.0,
                            **SIZE, **options}.items():  # fmt: skip
            given += [f"-{name}"] if value is True else [f"-{name}", str(value)]
        opt, _ = parser.parse_known_args(given)
        ArgumentParser.update_model_opts(opt)
        ArgumentParser.validate_model_opts(opt)
        torch.manual_seed(seed)
        model = build_base_model(opt, vocabs)
        for weight in model.parameters():
            nn.init.uniform_(weight, -0.1, 0.1)
        model.opt, model.vocabs = opt, vocabs
        return model.train()

    return build


def rated(case: str, **rates: float) -> dict[str, Any]:
    """Options: a case and rates for places."""
    space, time = CASES[case]
    return {"sd_space": space, "sd_time": time,
            **{f"sd_{place}_dropout": p for place, p in rates.items()}}  # fmt: skip


def batch(padded: bool = True) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    src = torch.randint(4, 64, (B, S, 1), generator=g)
    tgt = torch.randint(4, 64, (B, T, 1), generator=g)
    if padded:
        tgt[[1, 3], -1] = tgt[2, -3:] = 1
    return {
        "src": src,
        "tgt": tgt,
        "srclen": torch.tensor([9, 3, 9, 1, 5]),
    }


def loss(model: Any) -> Tensor:
    """Through stock's own loss: generator, coverage loss and all."""
    from onmt.utils.loss import LossCompute

    given = batch()
    compute = LossCompute.from_opts(model.opt, model, model.vocabs["tgt"])
    compute.__class__ = LossCompute  # ours, if a test before this one has built a whole model
    outputs, attentions = model(given["src"], given["tgt"], given["srclen"])
    return compute(given, outputs, attentions)[0]


def step(model: Any, seed: int = 3) -> dict[str, Tensor]:
    """The loss and the gradient of every weight."""
    model.zero_grad()
    torch.manual_seed(seed)
    value = loss(model)
    value.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": value.detach(), **grads}


def compare(got: dict[str, Tensor], want: dict[str, Tensor], **tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name, expected in want.items():
        torch.testing.assert_close(
            got[name], expected, msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


# ---------------------------------------------------------------- nothing dropped: stock itself


@every_option
@encoders
def test_is_stock_where_nothing_is_dropped(build: Build, option: str, encoder: str) -> None:
    stock = build(encoder, "rnn", **OPTIONS[option]).double()
    ours = build(f"sd_{encoder}", "sd_rnn", **OPTIONS[option]).double()
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, weight in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), f"{name}: one seed, one model"
    if option in STOCK_FAILS:
        with pytest.raises(RuntimeError, match="view"):
            loss(stock)
        step(ours)
        return
    compare(step(ours), step(stock))


@every_option
@encoders
def test_evaluation_is_stocks_bit_for_bit(build: Build, option: str, encoder: str) -> None:
    """Whatever the rates."""
    if option in STOCK_FAILS:
        option = "no input feed"
    stock = build(encoder, "rnn", **OPTIONS[option]).eval()
    rates = rated("III", **RATES)
    ours = build(f"sd_{encoder}", "sd_rnn", dropout=0.5, **OPTIONS[option], **rates).eval()
    with torch.no_grad():
        given = batch()
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
def test_ours_beside_stocks(build: Build, encoder: str, decoder: str, option: str) -> None:
    stock = build(encoder.removeprefix("sd_"), "rnn", **OPTIONS[option]).double()
    compare(step(build(encoder, decoder, **OPTIONS[option]).double()), step(stock))


@cells
def test_state_dicts_go_both_ways(build: Build, option: str) -> None:
    stock = build("brnn", "rnn", seed=1, **OPTIONS[option])
    ours = build("sd_brnn", "sd_rnn", seed=2, **OPTIONS[option], **rated("III", **RATES))
    before = {n: w.clone() for n, w in ours.state_dict().items()}
    nn.Module.load_state_dict(ours, stock.state_dict(), strict=True)
    nn.Module.load_state_dict(stock, before, strict=True)
    for name, weight in before.items():
        assert torch.equal(stock.state_dict()[name], weight), name


# ---------------------------------------------------------------- everything dropped: by engines


@every_case
@every_option
@encoders
def test_engines_agree(build: Build, option: str, encoder: str, case: str, engine: str) -> None:
    options = {**OPTIONS[option], **rated(case, **RATES)}
    model = build(f"sd_{encoder}", "sd_rnn", **options).double()
    with ops.use(engine):
        got = step(model)
    with ops.use("naive"):
        want = step(model)
    compare(got, want)
    other = step(model, seed=4)
    assert not all(torch.equal(other[n], got[n]) for n in got), "something is dropped at all"


# ---------------------------------------------------------------- everything dropped: by hand


class Player(nn.Module):
    """Stands where stock has a dropout layer, and applies the given masks call by call."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = iter(masks)

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self.masks)


def masks(keep: Keep | None, T: int = T) -> Tensor:
    """``[T, B, D]`` of 0 and the scale."""
    return keep.mask().expand(T, B, -1).double() * keep.scale


def play(stock: Any, drawn: dict[float, list[Keep]], layers: int, feed: bool) -> None:
    """Make stock's decoder drop exactly what was drawn."""
    (emb,), (out,) = drawn[RATES["tgt_embedding"]], drawn[RATES["output"]]
    stock.embeddings.register_forward_hook(lambda module, args, y: y * masks(emb).transpose(0, 1))
    between = [masks(k) for k in drawn[RATES["decoder"]]]
    state = [masks(k) for k in drawn[RATES["recurrent"]]]
    assert (len(between), len(state)) == (layers - 1, layers)
    if not feed:
        stock.dropout = Player([masks(out).transpose(0, 1)])
        return
    stock.dropout = Player(list(masks(out)))
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


def gru_step(layer: nn.GRUCell, calls: Iterator[Tensor], x: Tensor, h: Tensor) -> Tensor:
    """Take torch's step, with the state dropped in its product alone."""
    r_x, z_x, n_x = nn.functional.linear(x, layer.weight_ih, layer.bias_ih).chunk(3, 1)
    kept = h * next(calls)
    r_h, z_h, n_h = nn.functional.linear(kept, layer.weight_hh, layer.bias_hh).chunk(3, 1)
    z = torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h


def decode(decoder: Any, layers: int, *, gru: bool = False) -> dict[str, Any]:
    """One training forward and backward of a decoder alone, on a made-up source."""
    g = torch.Generator().manual_seed(2)
    enc_out, h, c = (
        torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True)
        for s in ((B, S, H), (layers, B, H), (layers, B, H))
    )
    given = batch(padded=False)  # of a target's end, stock leaves another state behind
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


@every_case
@pytest.mark.parametrize("option", [o for o in OPTIONS if OPTIONS[o]["input_feed"]])
def test_the_input_feed_decoder_is_stocks_with_masks(
    build: Build, option: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    """Every place of the decoder, the fed output and the state among them."""
    options = OPTIONS[option]
    layers = options.get("dec_layers", options.get("layers", 2))
    given = options.get("enc_layers", layers)
    ours = build("sd_rnn", "sd_rnn", **options, **rated(case, **RATES)).decoder.double()
    stock = build("rnn", "rnn", **options).decoder.double()
    gru = options.get("rnn_type") == "GRU"
    got = decode(ours, given, gru=gru)
    play(stock, drawn, layers, feed=True)
    compare(got, decode(stock, given, gru=gru))


@every_case
@pytest.mark.parametrize(
    ("gate", "cell"), [*((g, "LSTM") for g in (None, "source", "target", "both")), ("both", "GRU")]
)
def test_the_decoder_without_feed_drops_around_its_rnn(
    build: Build, case: str, gate: str | None, cell: str, drawn: dict[float, list[Keep]]
) -> None:
    """Its RNN is one of ours, which has tests of its own; here it drops nothing."""
    options = {"input_feed": 0, "rnn_type": cell, **({"context_gate": gate} if gate else {})}
    around = {p: RATES[p] for p in ("tgt_embedding", "output")}
    ours = build("sd_rnn", "sd_rnn", **options, **rated(case, **around)).decoder.double()
    stock = build("rnn", "rnn", **options).decoder.double()
    got = decode(ours, 2, gru=cell == "GRU")
    (emb,), (out,) = drawn[RATES["tgt_embedding"]], drawn[RATES["output"]]
    stock.embeddings.register_forward_hook(lambda module, args, y: y * masks(emb).transpose(0, 1))
    stock.dropout = Player([masks(out).transpose(0, 1)])
    # Stock views the RNN's output for the gate, which only works on a contiguous one.
    stock.rnn.register_forward_hook(lambda module, args, y: (y[0].contiguous(), y[1]))
    compare(got, decode(stock, 2, gru=cell == "GRU"))


@every_case
@pytest.mark.parametrize(("encoder", "cell"), [("rnn", "LSTM"), ("brnn", "LSTM"), ("brnn", "GRU")])
def test_the_encoder_drops_its_embeddings(
    build: Build, encoder: str, cell: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    options = rated(case, src_embedding=RATES["src_embedding"])
    ours = build(f"sd_{encoder}", "sd_rnn", rnn_type=cell, **options).encoder.double()
    stock = build(encoder, "rnn", rnn_type=cell).encoder.double()
    given = batch()
    got, got_state, _ = ours(given["src"], given["srclen"])
    (keep,) = drawn[RATES["src_embedding"]]
    if isinstance(keep, KeepMask):  # its rows are those of the batch sorted by length
        order = torch.argsort(given["srclen"], descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(
            torch.zeros(B, S, 1), given["srclen"], batch_first=True, enforce_sorted=False
        )
        assert torch.equal(given["srclen"][packed.sorted_indices], given["srclen"][order])
        keep = KeepMask(keep.mask()[:, packed.unsorted_indices], keep.scale)
    stock.embeddings.register_forward_hook(
        lambda module, args, y: y * masks(keep, S).transpose(0, 1)
    )
    want, want_state, _ = stock(given["src"], given["srclen"])
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_state, want_state)
    got.square().sum().backward()
    want.square().sum().backward()
    compare(*({n: p.grad for n, p in m.named_parameters()} for m in (ours, stock)))


@every_case
@feeds
@encoders
def test_places_and_draws(
    build: Build, option: str, encoder: str, case: str, drawn: dict[float, list[Keep]]
) -> None:
    """What is drawn in one step: where, how often, and for how many steps and units."""
    model = build(f"sd_{encoder}", "sd_rnn", **OPTIONS[option], **rated(case, **RATES))
    step(model)
    directions = 1 + (encoder == "brnn")
    half = H // directions
    fixed = CASES[case][1] == "fixed"

    def draws(place: str) -> list[tuple[int, int]]:
        return [(k.steps, k.width) for k in drawn.pop(RATES[place])]

    def steps(n: int) -> int:
        return 1 if fixed else n

    last = T - 1  # the last word of a target is only ever predicted, never read
    recurrent = draws("recurrent")
    assert recurrent[: 2 * directions] == [(steps(S), half)] * 2 * directions, "of the encoder"
    assert recurrent[2 * directions :] == [(steps(last), H)] * 2, "of the decoder"
    assert draws("src_embedding") == [(steps(S), E)]
    assert draws("encoder") == [(steps(S), H)]
    assert draws("tgt_embedding") == [(steps(last), E)]
    assert draws("decoder") == [(steps(last), H)]
    assert draws("output") == [(steps(last), H)]
    assert not drawn, "and nothing else"


@feeds
def test_evaluation_draws_nothing(
    build: Build, option: str, drawn: dict[float, list[Keep]]
) -> None:
    model = build("sd_brnn", "sd_rnn", dropout=0.5, **OPTIONS[option], **rated("III", **RATES))
    loss(model.eval())
    assert not drawn


@feeds
def test_only_dropout_drops(build: Build, option: str, drawn: dict[float, list[Keep]]) -> None:
    """``dropout`` alone reaches every place stock drops at; the state has to be asked for."""
    step(build("sd_brnn", "sd_rnn", dropout=0.3, **OPTIONS[option]))
    assert set(drawn) == {0.3}
    assert len(drawn[0.3]) == 5  # the places but the recurrent one, with 2 layers a side


# ---------------------------------------------------------------- schedules and generators


@feeds
def test_a_schedule_reaches_what_follows(
    build: Build, option: str, drawn: dict[float, list[Keep]]
) -> None:
    """Also places that began at 0, which stock never turns on; rates of their own stay."""
    own = {"sd_output_dropout": 0.4, "sd_recurrent_dropout": 0.45}
    model = build("sd_brnn", "sd_rnn", dropout=0.0, **OPTIONS[option], **own)
    step(model)
    assert set(drawn) == {0.4, 0.45}
    for rate in (0.2, 0.1):
        drawn.clear()
        model.update_dropout(rate, None)
        step(model)
        assert {p: len(keeps) for p, keeps in drawn.items()} == {rate: 4, 0.4: 1, 0.45: 6}
    drawn.clear()
    model.update_dropout(0.0, None)
    step(model)
    assert set(drawn) == {0.4, 0.45}


@feeds
def test_stocks_own_dropout_is_off(build: Build, option: str) -> None:
    """Else a unit would be dropped twice."""
    model = build("sd_brnn", "sd_rnn", dropout=0.5, **OPTIONS[option])
    for side in (model.encoder, model.decoder):
        assert side.embeddings.dropout_p == 0
        ids = batch()["src"]
        assert torch.equal(side.embeddings(ids), side.embeddings(ids))
    model.update_dropout(0.4, None)
    assert model.encoder.embeddings.dropout_p == 0
    assert model.decoder.embeddings.dropout_p == 0


@pytest.mark.parametrize(("cell", "kind"), [("LSTM", StructuredLSTM), ("GRU", StructuredGRU)])
def test_the_rnns_are_structured(build: Build, cell: str, kind: type) -> None:
    own = {"dropout": 0.3, "input_feed": 0, "sd_recurrent_dropout": 0.1}
    model = build("sd_brnn", "sd_rnn", rnn_type=cell, **own)
    for rnn in (model.encoder.rnn, model.decoder.rnn):
        assert type(rnn) is kind
        assert rnn.dropout == DropoutPattern(0.3)
        assert rnn.recurrent_dropout == DropoutPattern(0.1)
    assert model.encoder.rnn.input_dropout == DropoutPattern(0.3)


@feeds
def test_a_generator_of_its_own(build: Build, option: str) -> None:
    """All draws come from it, as on the ranks of a data-parallel run."""
    model = build("sd_brnn", "sd_rnn", **OPTIONS[option], **rated("III", **RATES))
    generator = torch.Generator()
    for side in (model.encoder, model.decoder):
        side.generator = generator
        side.apply_plan()
    results = []
    for torch_seed in (1, 2):
        generator.manual_seed(5)
        results.append(step(model, seed=torch_seed))
    compare(results[1], results[0], rtol=0, atol=0)


# ---------------------------------------------------------------- what a step costs and leaves


@cells
def test_a_step_multiplies_less(build: Build, option: str, engine: str) -> None:
    """Forward and backward; attention, generator and bridge stay dense."""

    def flops(**rates: float) -> int:
        # Attention is left out, and the vocabulary's layer is not part of the two modules.
        options = {**OPTIONS[option], "layers": 1, "hidden_size": 64, "word_vec_size": 64}
        model = build(
            "sd_rnn", "sd_rnn", global_attention="none", **options, **rated("III", **rates)
        )
        given = batch()
        with ops.use(engine), FlopCounterMode(display=False) as counter:
            torch.manual_seed(1)
            model(given["src"], given["tgt"], given["srclen"])[0].sum().backward()
        return counter.get_total_flops()

    rates = {"src_embedding": 0.75, "tgt_embedding": 0.75, "output": 0.75, "recurrent": 0.75}
    if engine == "dense":  # it masks
        assert flops(**rates) == flops()
        return
    # With input feed the first fed step keeps all: T - 1 of T are dropped there.
    assert flops(**rates) / flops() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("rates", [{}, RATES], ids=["nothing dropped", "all places"])
@cells
def test_nothing_outlives_a_step(build: Build, option: str, rates: dict[str, float]) -> None:
    """A cycle through the graph would cost memory every batch."""
    model = build("sd_brnn", "sd_rnn", **OPTIONS[option], **rated("III", **rates))
    made: list[weakref.ref[Tensor]] = []
    for module in (model.decoder, model.encoder.rnn):
        module.register_forward_hook(
            lambda module, args, y: made.extend(
                weakref.ref(t) for t in (y[0] if isinstance(y[0], Tensor) else y[0].data,)
            )
        )
    with ops.use("portable"):
        loss(model).backward()
    model.decoder.state = {}  # stock's own: what the next chunk would start from
    alive = [ref() for ref in made if ref() is not None]
    assert len(made) >= 2
    assert alive == []


@every_case
@cells
def test_mixed_precision(build: Build, option: str, case: str) -> None:
    model = build("sd_brnn", "sd_rnn", **OPTIONS[option], **rated(case, **RATES))
    exact = step(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.zero_grad()
        torch.manual_seed(3)
        value = loss(model)
    value.backward()
    assert value.item() == pytest.approx(exact["loss"].item(), rel=1e-2)
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.dtype == torch.float32, name
        assert weight.grad.isfinite().all(), name


@pytest.mark.parametrize(("length", "samples"), list(itertools.product((1, 2), (1, 2))))
@every_case
@cells
def test_short_and_lonely_sequences(
    build: Build, option: str, case: str, length: int, samples: int
) -> None:
    model = build("sd_brnn", "sd_rnn", **OPTIONS[option], **rated(case, **RATES))
    src, tgt = (torch.full((samples, n, 1), 5) for n in (length, length + 1))
    y, _ = model(src, tgt, torch.full((samples,), length))
    y.sum().backward()
    assert y.shape == (samples, length, H)
    assert all(p.grad.isfinite().all() for p in model.decoder.rnn.parameters())


@feeds
def test_a_batch_shares_what_it_drops(
    build: Build, option: str, drawn: dict[float, list[Keep]]
) -> None:
    """Structured: every sample lacks the same units of the output at a step."""
    output = RATES["output"]
    model = build("sd_rnn", "sd_rnn", **OPTIONS[option], **rated("III", output=output))
    given = batch(padded=False)
    y, _ = model(given["src"], given["tgt"], given["srclen"])  # [B, T - 1, H]
    (keep,) = drawn[output]
    assert torch.equal((y == 0).transpose(0, 1), ~keep.mask().expand(T - 1, B, H))
