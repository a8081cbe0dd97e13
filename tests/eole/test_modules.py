"""Encoder, decoders and loss against Eole's own: same weights, same places, fewer products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("eole", reason="Eole is not installed: scripts/check_eole.sh runs these tests")

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import native

Build = Callable[..., Any]
B, S, T, H, E = 5, 9, 7, 12, 10
OURS = {"sd_space": "structured"}

OPTIONS: dict[str, dict[str, Any]] = {
    "input feed": {},
    "no input feed": {"input_feed": 0},
    "dot": {"global_attention": "dot"},
    "mlp, coverage, gate both": {"global_attention": "mlp", "coverage_attn": True,
                                 "lambda_coverage": 0.5, "context_gate": "both"},
    "gate source": {"context_gate": "source"},
    "gate target": {"context_gate": "target"},
    "no attention": {"global_attention": None},
    "mlp, no feed": {"input_feed": 0, "global_attention": "mlp"},
    "one layer": {"layers": 1},
    "one layer, no feed": {"layers": 1, "input_feed": 0, "global_attention": "dot"},
    "fewer decoder layers": {"enc_layers": 3, "dec_layers": 2},
    "GRU": {"rnn_type": "GRU"},
    "GRU, no feed": {"rnn_type": "GRU", "input_feed": 0},
    "GRU, mlp, gate both": {"rnn_type": "GRU", "global_attention": "mlp", "context_gate": "both"},
    "bridge": {"bridge": True, "encoder_type": "rnn"},
    "GRU, bridge, no feed": {"bridge": True, "encoder_type": "rnn", "rnn_type": "GRU",
                             "input_feed": 0},
    "one direction": {"encoder_type": "rnn"},
}  # fmt: skip
RATES = {"src_embedding": 0.2, "encoder": 0.25, "tgt_embedding": 0.3, "decoder": 0.35,
         "output": 0.4, "recurrent": 0.45}  # fmt: skip
ALL = {f"sd_{place}_dropout": p for place, p in RATES.items()}

every_option = pytest.mark.parametrize("option", OPTIONS)
cells = pytest.mark.parametrize("option", ["input feed", "no input feed", "GRU", "GRU, no feed"])


@pytest.fixture(autouse=True)
def _automatic_engine() -> Any:
    ops.use("auto")
    yield
    ops.use("auto")


def batch(left: bool = False, middle: bool = False) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    src, tgt = (torch.randint(4, 64, (B, n), generator=g) for n in (S, T))
    pad = 1
    lengths = torch.tensor([9, 3, 9, 1, 5])
    for b, n in enumerate(lengths):
        src[b, : S - n] = pad if left else src[b, : S - n]
        src[b, n:] = src[b, n:] if left else pad
    if middle:
        src[0, 4] = pad
    tgt[[1, 3], -1] = tgt[2, -3:] = pad
    return {"src": src, "tgt": tgt, "srclen": lengths, "cid": ["c"] * B,
            "cid_line_number": list(range(B))}  # fmt: skip


def step(model: Any, seed: int = 3, given: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """The loss and the gradient of every weight, by Eole's trainer's calls."""
    given = batch() if given is None else given
    model.zero_grad()
    torch.manual_seed(seed)
    output, attns, estim = model(given["src"], given["tgt"], given["srclen"])
    loss, stats, _ = model.loss[True](given, output, attns, estim=estim)
    loss.sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.stats = stats
    return {"loss": loss.detach().double().sum(), **grads}


def compare(got: dict[str, Tensor], want: dict[str, Tensor], **tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name, expected in want.items():
        torch.testing.assert_close(
            got[name], expected, msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


# The loss is float32 in stock, whatever the model.
LOOSE = {"rtol": 1e-5, "atol": 1e-6}


@every_option
def test_is_stock_where_nothing_is_dropped(build: Build, option: str) -> None:
    stock = build(**OPTIONS[option]).double()
    ours = build(**OPTIONS[option], **OURS).double()
    assert type(ours.encoder).__module__.startswith("opennmt_sd.")
    assert type(stock.encoder).__module__.startswith("eole.")
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, weight in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), f"{name}: one seed, one model"
    compare(step(ours), step(stock), **LOOSE)
    for name in ("n_tokens", "n_correct", "n_sents", "n_batchs", "data_stats"):
        assert getattr(ours.stats, name) == getattr(stock.stats, name), name
    assert ours.stats.loss == pytest.approx(stock.stats.loss, rel=1e-5)


@pytest.mark.parametrize("padding", ["left", "middle"])
@cells
def test_padding_that_is_not_at_the_end(build: Build, option: str, padding: str) -> None:
    given = batch(**{padding: True})
    stock, ours = (build(**OPTIONS[option], **more).double() for more in ({}, OURS))
    compare(step(ours, given=given), step(stock, given=given), **LOOSE)


def test_a_generator_that_is_more_than_a_linear_layer(build: Build) -> None:
    """Stock computes its loss, also of targets that all end together."""
    given = batch()
    given["tgt"] = given["tgt"].clamp(min=4)
    stock, ours = (build(input_feed=0, **more).double() for more in ({}, OURS))
    for model in (stock, ours):
        model.generator.register_forward_hook(lambda _module, _given, scores: 2 * scores)
    compare(step(ours, given=given), step(stock, given=given), **LOOSE)


@every_option
def test_evaluation_is_stocks_bit_for_bit(build: Build, option: str) -> None:
    """Whatever the rates, its loss and statistics too."""
    stock = build(**OPTIONS[option]).eval()
    ours = build(**OPTIONS[option], **ALL, training={"dropout": [0.5]}).eval()
    given, results = batch(), []
    for model in (stock, ours):
        with torch.no_grad():
            output, attns, estim = model(given["src"], given["tgt"], given["srclen"])
            loss, stats, _ = model.loss[False](given, output, attns, estim=estim)
        results.append((output, attns, loss, vars(stats)))
    (want, want_attns, want_loss, want_stats), (got, attns, loss, stats) = results
    assert torch.equal(got, want)
    assert attns.keys() == want_attns.keys()
    for name, attention in want_attns.items():
        assert torch.equal(attns[name], attention), name
    assert torch.equal(loss, want_loss)
    del stats["start_time"], want_stats["start_time"]
    assert stats == want_stats
    assert type(ours.loss[False]).__module__.startswith("eole.")


@pytest.mark.parametrize("engine", ["cpu", "portable"])
@cells
def test_engines_agree(build: Build, option: str, engine: str) -> None:
    if engine == "cpu" and native() is None:
        pytest.skip("the native module was not built")
    model = build(**OPTIONS[option], **ALL).double()
    with ops.use(engine):
        got = step(model)
    with ops.use("naive"):
        want = step(model)
    compare(got, want, **LOOSE)
    other = step(model, seed=4)
    assert not all(torch.equal(other[n], got[n]) for n in got), "something is dropped at all"


class Player(nn.Module):
    """Stands where Eole has a dropout layer, and applies the given masks call by call."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = iter(masks)
        self.raw: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.raw.append(x)
        return x * next(self.masks)


def masks(keep: Keep, steps: int) -> Tensor:
    """``[T, B, D]`` of 0 and the scale."""
    return keep.mask().expand(steps, B, -1).double() * keep.scale


@pytest.mark.parametrize(
    ("space", "output"),
    [("structured", "by_step"), ("structured", "staggered"), ("random", "staggered")],
)
@pytest.mark.parametrize("count", [None, "bernoulli"])
@pytest.mark.parametrize("option", ["input feed", "gate target", "dot"])
def test_a_model_is_stocks_with_masks(
    build: Build,
    option: str,
    space: str,
    output: str,
    count: str | None,
    drawn: dict[float, list[Keep]],
) -> None:
    """Every place where Eole drops too but between layers of the encoder: loss, all gradients."""
    rates = {key: p for key, p in ALL.items() if "recurrent" not in key and "_encoder" not in key}
    own = {"sd_space": space, "sd_output_sets": output, "sd_count": count}
    ours = build(**OPTIONS[option], **rates, **own).double()
    stock = build(**OPTIONS[option]).double()
    got, last = step(ours), T - 1
    apart = output == "staggered" and space == "structured"
    assert len(drawn[RATES["output"]]) == 1 + apart, "what is fed has a draw of its own"
    drops = {place: masks(keeps[-1], last) for place, keeps in _by_place(drawn).items()
             if place != "src_embedding"}  # fmt: skip
    if space == "random":  # the rows are those of the targets, the longest first: 6, 6, 4, 6, 6
        back = torch.tensor([0, 1, 3, 4, 2]).argsort()
        drops = {place: mask[:, back] for place, mask in drops.items()}
    source = masks(drawn[RATES["src_embedding"]][0], S)
    for embeddings, mask in ((stock.src_emb, source), (stock.tgt_emb, drops["tgt_embedding"])):
        embeddings.register_forward_hook(lambda _, __, y, mask=mask: y * mask.transpose(0, 1))
    stock.decoder.dropout = Player([*drops["output"]])
    stock.decoder.rnn.dropout = Player([*drops["decoder"]])
    if apart:
        sets = masks(drawn[RATES["output"]][0], last)[:, 0]
        rows = [sets[(t + b * last // B) % last] for t in range(last) for b in range(B)]
        out = torch.stack(rows).unflatten(0, (last, B))

        def put_out(module: Any, args: Any, result: Any) -> Any:
            whole = torch.stack(module.dropout.raw) * out  # [T, B, H]
            return whole.transpose(0, 1).contiguous(), result[1]

        stock.decoder.register_forward_hook(put_out)
    compare(got, step(stock), **LOOSE)


def _by_place(drawn: dict[float, list[Keep]]) -> dict[str, list[Keep]]:
    return {place: drawn[p] for place, p in RATES.items() if p in drawn}


@cells
def test_places_and_draws(build: Build, option: str, drawn: dict[float, list[Keep]]) -> None:
    step(build(**OPTIONS[option], **ALL))
    draws = {place: [(k.steps, k.width) for k in drawn.pop(p)] for place, p in RATES.items()}
    last = T - 1  # the last word of a target is only ever predicted, never read
    assert draws == {
        "src_embedding": [(S, E)], "encoder": [(S, H)], "tgt_embedding": [(last, E)],
        "decoder": [(last, H)],
        "output": [(last, H)] * (1 + OPTIONS[option].get("input_feed", 1)),  # what is fed by itself
        "recurrent": [(S, H // 2)] * 4 + [(last, H)] * 2,
    }  # fmt: skip
    assert not drawn, "and nothing else"


@pytest.mark.parametrize("option", ["input feed", "no input feed"])
def test_a_schedule_reaches_what_follows(
    build: Build, option: str, drawn: dict[float, list[Keep]]
) -> None:
    """Eole's own dropout stays off, else a unit would be dropped twice."""
    own = {"sd_output_dropout": 0.4, "sd_recurrent_dropout": 0.45}
    model = build(**OPTIONS[option], **own)
    step(model)
    assert set(drawn) == {0.4, 0.45}
    for rate in (0.2, 0.1):
        drawn.clear()
        model.update_dropout(rate, 0.0)
        step(model)
        outputs = 2 if option == "input feed" else 1
        assert {p: len(keeps) for p, keeps in drawn.items()} == {rate: 4, 0.4: outputs, 0.45: 6}
        for embeddings in (model.src_emb, model.tgt_emb):
            assert (embeddings.dropout_p, embeddings.dropout.p) == (0.0, 0.0)


def test_the_options_choose_space_time_and_count(build: Build) -> None:
    for count, shown in (("exact", "/exact"), (None, "/exact"), ("bernoulli", "")):
        model = build(sd_space="structured", sd_time="fixed", sd_count=count,
                      training={"dropout": [0.3]})  # fmt: skip
        assert model.encoder.plan.describe() == model.decoder.plan.describe()
        assert f"encoder 0.3 structured/fixed{shown}, " in model.encoder.plan.describe()
    assert "recurrent 0 " in model.encoder.plan.describe()


def test_the_precision_of_products(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is told, where the options say something of it."""
    calls: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", calls.append)
    build(**OURS)
    build(**OURS, sd_matmul_precision="medium")
    assert calls == ["medium"]


def test_the_entropy_of_attention_is_that_of_words(build: Build) -> None:
    """Of targets without padding it is stock's."""
    stock, ours = build(), build(**OURS)
    given = batch()
    given["tgt"] = given["tgt"].clamp(min=4)
    step(stock, given=given)
    step(ours, given=given)
    assert ours.stats.attention_entropy == pytest.approx(stock.stats.attention_entropy, rel=1e-4)
    step(ours)
    padded = ours.stats.attention_entropy / ours.stats.n_attention_samples
    whole = stock.stats.attention_entropy / stock.stats.n_attention_samples
    assert padded == pytest.approx(whole, rel=0.05), "zeros past the ends do not count"


@pytest.mark.parametrize("optim", ["adam", "sgd", "adafactor", "adamw"])
def test_optimizers(build: Build, optim: str) -> None:
    from opennmt_sd.seq2seq.fused_adam import FusedAdam

    model = build(training={"optim": optim, "learning_rate": 0.01}, **ALL)
    assert (type(model.optim._optimizer) is FusedAdam) == (optim == "adam")
    for _ in range(3):
        step(model)
        model.optim.step()
    assert all(weight.isfinite().all() for weight in model.parameters())


@cells
def test_mixed_precision(build: Build, option: str) -> None:
    model = build(**OPTIONS[option], **ALL)
    exact = step(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = step(model)
    assert low["loss"].item() == pytest.approx(exact["loss"].item(), rel=1e-2)
    assert all(g.isfinite().all() for g in low.values())
