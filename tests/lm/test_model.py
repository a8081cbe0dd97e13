"""The model: patterns at every place, tied weights, penalties, initial values, state."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.lm import LanguageModel
from opennmt_sd.lm.model import drop_words
from opennmt_sd.nn.base import Structured

V, T, B = 17, 6, 4
CASES = {
    name: (space, time)
    for name, (space, time) in zip(
        ("III", "IV", "I", "II"), product(("structured", "random"), ("random", "fixed"))
    )
}


def build(**arguments) -> LanguageModel:
    return LanguageModel(V, **{"embedding": 8, "hidden": 8, "layers": 2, "init": 0.5, **arguments})


def batch(T: int = T, B: int = B) -> tuple[Tensor, Tensor]:
    text = torch.randint(V, (T + 1, B))
    return text[:-1], text[1:]


def _lstm(x: Tensor, dropped: Tensor, state: list[Tensor], w: list[Tensor]) -> list[Tensor]:
    gates = x @ w[0].t() + dropped @ w[1].t() + w[2] + w[3]
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def _gru(x: Tensor, dropped: Tensor, state: list[Tensor], w: list[Tensor]) -> list[Tensor]:
    of_x, of_h = x @ w[0].t() + w[2], dropped @ w[1].t() + w[3]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = of_x.chunk(3, 1), of_h.chunk(3, 1)
    z, n = (z_x + z_h).sigmoid(), (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return [(1 - z) * n + z * state[0]]  # the h that is carried over is undropped


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


# ---- dropout ----


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", ["nr", "rh", "fc", "input", "words"])
def test_every_case_at_every_place(place: str, case: str, cell: str) -> None:
    """What is drawn reaches the place, and the gradients are those of the dense truth."""
    pattern = DropoutPattern(0.4, *CASES[case])
    model, data = build(cell=cell, **{place: pattern}), batch()
    results = []
    for engine in ("auto", "naive"):
        torch.manual_seed(3)
        with ops.use(engine):
            loss = model(*data).loss
            results.append({"loss": loss, **gradients(model, loss)})
    for name, want in results[1].items():
        torch.testing.assert_close(results[0][name], want, msg=lambda m, n=name: f"{n}: {m}")
    dense = build(cell=cell)
    dense.load_state_dict(model.state_dict())
    assert not torch.isclose(results[0]["loss"], dense(*data).loss, rtol=1e-4)
    assert torch.equal(model.eval()(*data).loss, dense.eval()(*data).loss)


@pytest.mark.parametrize(("cell", "step"), [("lstm", _lstm), ("gru", _gru)])
def test_the_formula_with_nr_rh_and_fc(cell: str, step) -> None:
    """Against steps written out with the same draws: input, state and output are dropped."""
    rh, fc = DropoutPattern(0.3, "random"), DropoutPattern(0.4, time="fixed")
    model, (ids, targets) = build(cell=cell, nr=0.5, rh=rh, fc=fc), batch()
    torch.manual_seed(9)
    got = model(ids, targets)
    torch.manual_seed(9)
    x = model.embedding(ids)
    for k in range(2):
        keep, state_keep = (
            getattr(model.stacks[0], name).draw(T, B, 8)
            for name in ("dropout", "recurrent_dropout")
        )
        x, state = keep.apply(x), [torch.zeros(B, 8), torch.zeros(B, 8)]
        w = [getattr(model.stacks[0], f"{n}_l{k}") for n in
             ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
        outputs = []
        for t in range(T):
            dropped = state_keep[t].apply(state[0][None])[0]
            state = step(x[t], dropped, state, w)
            outputs.append(state[0])
        x = torch.stack(outputs)
    x = model.decoder.dropout.draw(T, B, 8).apply(x)
    want = F.cross_entropy(model.decoder.eval()(x).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(got.loss, want)
    torch.testing.assert_close(got.nats, want.detach() * T * B)


def test_places_and_their_patterns() -> None:
    model = build(hidden=[8, 8, 5], layers=None, nr=0.1, rh=0.2, fc=0.3, input=0.4)
    first, second = model.stacks
    assert (first.num_layers, first.hidden_size, second.num_layers) == (2, 8, 1)
    assert (first.input_dropout.p, first.dropout.p, first.recurrent_dropout.p) == (0.4, 0.1, 0.2)
    assert (second.input_dropout.p, second.recurrent_dropout.p) == (0.1, 0.2)
    assert model.decoder.dropout == DropoutPattern(0.3)
    assert build(nr=0.1).stacks[0].input_dropout.p == 0.1
    assert build(words=0.1).words == DropoutPattern(0.1, "structured", "fixed")


@pytest.mark.parametrize("space", ["structured", "random"])
def test_a_dropped_word_is_zero_wherever_it_occurs(space: str) -> None:
    ids = torch.randint(5, (30, B))
    keep = DropoutPattern(0.5, space, "fixed").draw(30, B, 5)
    x = drop_words(torch.ones(30, B, 3), ids, keep)
    mask = keep.mask().expand(-1, B, -1)[0]  # [B, V]
    for t in range(30):
        for b in range(B):
            kept = bool(mask[b, ids[t, b]])
            assert x[t, b].tolist() == [2.0 * kept] * 3


# ---- the loss and its penalties ----


def test_scale_multiplies_the_loss_and_not_the_nats() -> None:
    model, data = build(ar=2.0, tar=1.0), batch()
    one, six = model(*data), model(*data, scale=6.0)
    torch.testing.assert_close(six.loss, 6 * one.loss)
    torch.testing.assert_close(six.nats, one.nats)
    assert not one.nats.requires_grad


@pytest.mark.parametrize("fc", [None, 0.5, DropoutPattern(0.5, "random", "fixed")],
                         ids=["no fc", "III", "II"])  # fmt: skip
def test_ar_and_tar(fc: DropoutPattern | None) -> None:
    """Merity et al., section 4: AR on the dropped output, TAR on the undropped one."""
    model, data = build(fc=fc), batch()
    penalised = build(fc=fc, ar=2.0, tar=3.0)
    penalised.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    plain = model(*data)
    torch.manual_seed(3)
    got = penalised(*data)
    torch.manual_seed(3)
    x, _ = model.stacks[0](model.embedding(data[0]))
    dropped = model.decoder.dropout.draw(T, B, 8).apply(x) if fc else x
    want = plain.loss + 2 * dropped.pow(2).mean() + 3 * (x[1:] - x[:-1]).pow(2).mean()
    torch.testing.assert_close(got.loss, want)
    torch.testing.assert_close(got.nats, plain.nats)
    grads = gradients(penalised, got.loss)
    for name, g in gradients(model, want).items():
        torch.testing.assert_close(grads[name], g, msg=lambda m, n=name: f"{n}: {m}")
    assert torch.equal(penalised.eval()(*data).loss, model.eval()(*data).loss)


def test_a_segment_of_one_step_has_no_tar() -> None:
    model, data = build(tar=3.0), batch(T=1)
    plain = build()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(*data).loss, plain(*data).loss)


# ---- state ----


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("hidden", [8, [8, 5]], ids=str)
def test_two_segments_are_one_long_one(hidden, cell: str) -> None:
    model = build(hidden=hidden, layers=None, cell=cell).eval()
    ids, targets = batch(T=10)
    whole = model(ids, targets)
    first = model(ids[:4], targets[:4])
    second = model(ids[4:], targets[4:], first.state)
    torch.testing.assert_close(first.nats + second.nats, whole.nats)
    for got, want in zip(second.state, whole.state):
        assert len(got) == (2 if cell == "lstm" else 1)  # h and c, or h alone
        for g, w in zip(got, want):
            torch.testing.assert_close(g, w)
            assert not g.requires_grad
    logits, _ = model.logits(ids)
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), whole.loss)


# ---- parameters ----


def test_tied_weights() -> None:
    model, data = build(hidden=[9, 8], layers=None, tied=True, fc=0.5, nr=0.5), batch()
    assert model.decoder.weight is model.embedding.weight
    free = build(hidden=[9, 8], layers=None, fc=0.5, nr=0.5)
    free.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    tied_grads = gradients(model, model(*data).loss)
    torch.manual_seed(3)
    grads = gradients(free, free(*data).loss)
    torch.testing.assert_close(
        tied_grads["embedding.weight"], grads["embedding.weight"] + grads["decoder.weight"]
    )
    assert "decoder.weight" not in tied_grads


def test_initial_values() -> None:
    model = LanguageModel(500, embedding=20, hidden=20, init=0.04)
    for name, parameter in model.named_parameters():
        assert 0.03 < parameter.abs().max() <= 0.04, name
    awd = LanguageModel(500, embedding=20, hidden=20, init=None)
    assert 0.09 < awd.embedding.weight.abs().max() <= 0.1
    assert 0.09 < awd.decoder.weight.abs().max() <= 0.1
    assert not awd.decoder.bias.any()
    assert 0.2 < awd.stacks[0].weight_hh_l0.abs().max() <= 20**-0.5


def test_initial_values_do_not_depend_on_dropout() -> None:
    states = []
    for dropout in ({}, {"nr": 0.5, "rh": 0.5, "fc": 0.5}):
        torch.manual_seed(3)
        states.append(build(**dropout).state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


SHAPES = {
    "Zaremba": {"nr": 0.5, "fc": 0.5},
    "Gal and Ghahramani": {
        **dict.fromkeys(("nr", "rh", "fc", "words"), DropoutPattern(0.4, "random", "fixed"))
    },
    "AWD-LSTM": {
        "hidden": [12, 12, 8], "layers": None, "tied": True, "ar": 2.0, "tar": 1.0, "words": 0.1,
        "init": None, "weight_drop": 0.5,
        **dict.fromkeys(("input", "nr", "fc"), DropoutPattern(0.4, "random", "fixed")),
    },
    "AWD-LSTM with structured RH": {
        "hidden": [12, 12, 8], "layers": None, "tied": True, "ar": 2.0, "tar": 1.0, "words": 0.1,
        "init": None, "rh": 0.3, "input": 0.4, "nr": 0.25, "fc": 0.4,
    },
}  # fmt: skip
SHAPES |= {f"{name}, GRU": {**shape, "cell": "gru"} for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_the_published_models_learn_by_heart(name: str) -> None:
    model, data = build(**SHAPES[name]), batch()
    before = model.eval()(*data).loss.item()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        model(*data).loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.eval()(*data).loss.item() < before - 0.3


def test_autocast_and_the_state_it_leaves() -> None:
    model, data = build(nr=0.5, rh=0.3, fc=0.5), batch()
    with torch.autocast("cpu", torch.bfloat16):
        first = model(*data)
        second = model(*data, first.state)
    second.loss.backward()
    assert second.loss.dtype == torch.float32
    assert model.embedding.weight.grad.isfinite().all()


@pytest.mark.parametrize("words", [0.5, DropoutPattern(0.5, "random")], ids=str)
def test_a_generator_governs_every_place(words: DropoutPattern | float) -> None:
    model, (ids, targets) = build(words=words, nr=0.5, rh=0.5, fc=0.5), batch()

    def loss() -> float:
        for module in model.modules():
            if isinstance(module, Structured):
                module.generator = torch.Generator().manual_seed(1)
        return model(ids, targets).loss.item()

    before = torch.get_rng_state()
    assert len({loss() for _ in range(4)}) == 1
    assert torch.equal(torch.get_rng_state(), before)
