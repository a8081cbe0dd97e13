"""What torch does to modules: copies, pickles, compilation, parametrizations, checkpoints."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredDropout,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
)

T, B, D, H = 5, 3, 4, 6
FIXED = DropoutPattern(0.4, "random", "fixed")

MODULES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: StructuredLSTM(D, H, 2, dropout=FIXED, input_dropout=0.5,
                                   recurrent_dropout=0.3),
    "gru": lambda: StructuredGRU(D, H, 2, dropout=FIXED, input_dropout=0.5, recurrent_dropout=0.3),
    "cell": lambda: StructuredLSTMCell(D, H, input_dropout=0.5, recurrent_dropout=0.3),
    "gru cell": lambda: StructuredGRUCell(D, H, input_dropout=0.5, recurrent_dropout=0.3),
    "linear": lambda: MaskedLinear(D, H, dropout=FIXED, batch_first=True),
    "dropout": lambda: StructuredDropout(FIXED, batch_first=True),
}  # fmt: skip
every_module = pytest.mark.parametrize("build", MODULES.values(), ids=MODULES.keys())


def first(y: Any) -> Tensor:
    return y[0] if isinstance(y, tuple) else y


def example(module: nn.Module) -> Tensor:
    return torch.randn(B, D) if isinstance(module, nn.RNNCellBase) else torch.randn(B, T, D)


def seeded(module: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(7)
    return first(module(x))


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_module
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved])
@pytest.mark.parametrize("generator", [False, True], ids=["", "own generator"])
def test_duplicates(
    build: Callable[[], nn.Module], duplicate: Callable[[nn.Module], nn.Module], generator: bool
) -> None:
    """The patterns come along; a generator does not, and stays with the original."""
    module = build()
    if generator:
        module.generator = torch.Generator()
    other = duplicate(module)
    assert repr(other) == repr(module)
    assert other.generator is None
    assert (module.generator is not None) == generator
    module.generator = None
    x = example(module)
    assert torch.equal(seeded(other, x), seeded(module, x))
    for parameter in other.parameters():
        with torch.no_grad():
            parameter.zero_()
    assert all(p.any() for p in module.parameters()), "a copy shares nothing"
    seeded(other, x)  # and goes on working with its own weights


@every_module
def test_scripting_is_refused(build: Callable[[], nn.Module]) -> None:
    module = build()
    with pytest.raises(NotImplementedError) as error:
        torch.jit.script(nn.Sequential(module))
    assert str(error.value) == (
        f"{type(module).__name__} cannot be scripted (torch.jit.script): turn it back into torch's "
        "own modules first, with opennmt_sd.revert(model)"
    )


@every_module
def test_repr_tells_what_is_dropped(build: Callable[[], nn.Module]) -> None:
    text = repr(build())
    assert "DropoutPattern(p=" in text
    if build not in (MODULES["cell"], MODULES["gru cell"]):
        assert "DropoutPattern(p=0.4, space='random', time='fixed')" in text


def test_repr_of_a_layer(kind) -> None:
    layer = kind.ours(D, H, 2, False, True, 0.5, True)
    assert repr(layer) == (
        f"{kind.ours.__name__}(4, 6, num_layers=2, batch_first=True, bidirectional=True, "
        "bias=False, dropout=DropoutPattern(p=0.5, space='structured', time='random'))"
    )


class Halved(nn.Module):
    """A parametrization whose effect is easy to see."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_parametrizations_of_a_layer(layer: str, name: str, training: bool) -> None:
    """Weights are read at every call, so a parametrization takes effect."""
    module = MODULES[layer]().train(training)
    plain = copy.deepcopy(module)
    with torch.no_grad():
        getattr(plain, name).div_(2)
    parametrize.register_parametrization(module, name, Halved())
    x = torch.randn(T, B, D)
    y = seeded(module, x)
    torch.testing.assert_close(y, seeded(plain, x))
    y.sum().backward()
    seeded(plain, x).sum().backward()
    original = module.parametrizations[name].original
    torch.testing.assert_close(original.grad, getattr(plain, name).grad / 2)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_norms(layer: str, norm: Callable[..., nn.Module]) -> None:
    module = norm(MODULES[layer](), "weight_hh_l0")
    before = module.weight_hh_l0.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn(T, B, D)
    for _ in range(2):
        optimizer.zero_grad()
        first(module(x)).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(module.weight_hh_l0, before)
    linear = norm(MODULES["linear"](), "weight")
    first(linear(torch.randn(B, T, D))).sum().backward()
    assert all(p.grad is not None for p in linear.parameters())


@every_module
def test_weights_from_outside(build: Callable[[], nn.Module]) -> None:
    """``functional_call`` swaps parameters for the length of a call."""
    module = build()
    zeros = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    x = example(module)
    want = copy.deepcopy(module)
    for p in want.parameters():
        p.detach().zero_()
    torch.manual_seed(7)
    got = first(torch.func.functional_call(module, zeros, x))
    assert torch.equal(got, seeded(want, x))


@every_module
def test_moves_between_dtypes(build: Callable[[], nn.Module]) -> None:
    module = build().double()
    assert first(module(example(module).double())).dtype == torch.float64


@pytest.mark.parametrize("name", ["lstm", "gru", "cell", "gru cell", "linear"])
def test_gradient_checkpointing(name: str) -> None:
    """The recomputation draws the same sets, because torch's generator is put back."""
    module = MODULES[name]()
    x = example(module)

    def grads(run: Callable[[], Tensor]) -> list[Tensor]:
        torch.manual_seed(7)
        return list(torch.autograd.grad(run().square().sum(), list(module.parameters())))

    want = grads(lambda: first(module(x)))
    got = grads(lambda: checkpoint(lambda x: first(module(x)), x, use_reentrant=False))
    torch.testing.assert_close(got, want)


class Tagger(nn.Module):
    """All of ours in one model, with recurrent layers of a kind."""

    def __init__(self, layers: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, D)
        self.drop = StructuredDropout(0.5)
        self.layers = layers(D, H, 2, bidirectional=True, dropout=0.5, input_dropout=0.5,
                             recurrent_dropout=0.5)  # fmt: skip
        self.out = MaskedLinear(2 * H, 20)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.layers(self.drop(self.embed(ids)))[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of what it falls back on
def test_compilation(kind) -> None:
    """Graph breaks are allowed; other results are not."""
    model = Tagger(kind.ours)
    compiled = torch.compile(model, backend="aot_eager")  # without a C++ compiler
    for T in (4, 5):  # the second length makes shapes dynamic
        ids = torch.randint(20, (T, B))
        got, want = (seeded(m, ids) for m in (compiled, model))
        torch.testing.assert_close(got, want)
        leaves = list(model.parameters())
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (got, want))):
            torch.testing.assert_close(a, b)
    compiled.eval()
    torch.testing.assert_close(compiled(ids), model(ids))


def test_training_lowers_a_loss(kind) -> None:
    """The whole of it learns: a sequence is memorised through its own dropout."""
    torch.manual_seed(0)
    model = Tagger(kind.ours)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    ids = torch.randint(20, (T, B))
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    assert nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()) < 0.5 * losses[0]
