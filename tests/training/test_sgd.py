"""SGD that clips: what torch's clipping and SGD give, also of gradients that are rows alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd.training import sgd
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.sgd import ClippedSGD, rows_alone

WORDS, WIDTH = 30, 4


class Net(nn.Module):
    """Scores words by an embedding and a projection, whose weight may be the embedding's."""

    def __init__(self, tied: bool = False, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, WIDTH, dtype=dtype)
        self.projection = nn.Linear(WIDTH, WORDS, dtype=dtype)
        if tied:
            self.projection.weight = self.embedding.weight

    def backward(self, update: int) -> None:
        words = torch.randint(WORDS // 2, (9,), generator=torch.Generator().manual_seed(update))
        self.projection(self.embedding(words)).pow(2).sum().backward()


def stock(net: Net, clip: float | None, updates: int = 3, **given: float) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.01, **given)
    for update in range(updates):
        net.backward(update)
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


def ours(net: Net, clip: float | None, updates: int = 3, **given: float) -> ClippedSGD:
    optimizer = ClippedSGD(net.parameters(), 0.01, max_norm=clip, **given)
    for update in range(updates):
        net.backward(update)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
@pytest.mark.parametrize(
    "given",
    [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.9, "weight_decay": 0.1}],
    ids=str,
)
def test_weights_are_those_of_torchs_clipping_and_sgd(given, clip, rows, tied, monkeypatch) -> None:
    monkeypatch.setattr(sgd, "LARGE", 0 if rows else math.inf)
    expected, net = Net(tied), Net(tied)
    stock(expected, clip, **given)
    with rows_alone(net):
        ours(net, clip, **given)
    torch.testing.assert_close(net.state_dict(), expected.state_dict())


@pytest.mark.parametrize("given", [{}, {"momentum": 0.9}], ids=str)
@pytest.mark.parametrize("clip", [None, 1e6])
def test_bits_are_torchs_where_nothing_is_clipped(given, clip) -> None:
    expected, net = Net(dtype=torch.float32), Net(dtype=torch.float32)
    stock(expected, clip, **given)
    ours(net, clip, **given)
    assert all(map(torch.equal, net.parameters(), expected.parameters()))


def test_a_decay_below_the_last_digit_of_a_weight_is_not_lost() -> None:
    """0.3 of that digit a time, with a gradient that crosses digits: torch adds the two first."""
    weights = [nn.Parameter(torch.full((1000,), 1.0)) for _ in range(2)]
    gradient = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e-6
    optimizers = [
        torch.optim.SGD(weights[:1], 1.0, weight_decay=4e-8),
        ClippedSGD(weights[1:], 1.0, weight_decay=4e-8),
    ]
    for optimizer, weight in zip(optimizers, weights):
        for _ in range(10):
            weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=0, atol=1e-7)


def test_only_rows_that_were_looked_up_have_a_gradient(monkeypatch) -> None:
    net = Net()
    with rows_alone(net):
        net.backward(0)
    assert not net.embedding.weight.grad.is_sparse  # it is small
    net.zero_grad()
    monkeypatch.setattr(sgd, "LARGE", WORDS * WIDTH)
    with rows_alone(net):
        net.backward(0)
    assert net.embedding.weight.grad.is_sparse
    assert net.embedding.weight.grad._nnz() == 9
    assert net.embedding.sparse is False  # as it was


def test_an_embedding_that_cannot_or_has_chosen_stays_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(sgd, "LARGE", 0)
    scaled = nn.Embedding(3, 2, scale_grad_by_freq=True)
    sparse, half = nn.Embedding(3, 2, sparse=True), nn.Embedding(3, 2, dtype=torch.bfloat16)
    with rows_alone(nn.ModuleList([scaled, sparse, half])):
        assert (scaled.sparse, sparse.sparse, half.sparse) == (False, True, False)
    assert sparse.sparse is True


class Tripled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 3 * weight


def test_a_gradient_that_others_see_stays_as_it_is(monkeypatch) -> None:
    """Hooks, parametrizations and modules of a user's own do not know sparse gradients."""
    monkeypatch.setattr(sgd, "LARGE", 0)
    hooked, tripled = nn.Embedding(3, 2), nn.Embedding(3, 2)
    hooked.weight.register_hook(lambda grad: grad.clamp(-0.5, 0.5))
    nn.utils.parametrize.register_parametrization(tripled, "weight", Tripled())
    largest, own = nn.EmbeddingBag(3, 2, mode="max"), nn.Identity()
    own.sparse = False
    with rows_alone(nn.ModuleList([hooked, tripled, largest, own])):
        for embedding in (hooked, tripled):
            embedding(torch.tensor([1])).sum().backward()
        largest(torch.tensor([[1, 2]])).sum().backward()
        assert own.sparse is False
    assert hooked.weight.grad.tolist() == [[0, 0], [0.5, 0.5], [0, 0]]
    assert not tripled.parametrizations.weight.original.grad.is_sparse


def test_a_gradient_that_is_no_number_reaches_the_weights() -> None:
    net = Net()
    net.backward(0)
    net.projection.bias.grad[0] = math.nan
    ClippedSGD(net.parameters(), 0.01, max_norm=1.0).step()
    assert net.projection.weight.isnan().all()  # as with torch's: the norm is none


def test_without_gradients_nothing_changes() -> None:
    net = Net()
    ClippedSGD(net.parameters(), 0.01, max_norm=1.0).step()
    assert all(map(torch.equal, net.parameters(), Net().parameters()))


def test_gradients_are_left_as_they_were() -> None:
    net = Net()
    net.backward(0)
    before = net.projection.weight.grad.clone()
    ClippedSGD(net.parameters(), 0.01, max_norm=0.1, momentum=0.9, weight_decay=0.1).step()
    assert torch.equal(net.projection.weight.grad, before)


def test_checkpoints_are_those_of_torchs_sgd() -> None:
    given = {"momentum": 0.9, "weight_decay": 0.1}
    start = Net()
    saved = copy.deepcopy(ours(start, None, **given).state_dict())
    ends = []
    for kind in (torch.optim.SGD, ClippedSGD):
        net = copy.deepcopy(start)
        optimizer = kind(net.parameters(), 0.01, **given)
        assert optimizer.state_dict().keys() == saved.keys()
        assert optimizer.state_dict()["param_groups"] == saved["param_groups"]
        optimizer.load_state_dict(copy.deepcopy(saved))
        net.backward(7)
        optimizer.step()
        ends.append(net.state_dict())
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0]["projection.bias"], start.projection.bias)


def test_a_closure_gives_the_loss() -> None:
    net = Net()

    def closure() -> float:
        net.backward(0)
        return 3.0

    assert ClippedSGD(net.parameters(), 0.01).step(closure) == 3.0
    assert not torch.equal(net.embedding.weight, Net().embedding.weight)


def test_on_a_gpu_it_is_torchs_own() -> None:
    """A norm would have to come back to the host."""
    recipe = Recipe(lr=0.5, clip=1.0, momentum=0.9, weight_decay=0.1)
    net = Net()
    assert type(recipe.optimizer_for(net, torch.device("cuda"))) is torch.optim.SGD
    made = recipe.optimizer_for(net, torch.device("cpu"))
    assert isinstance(made, ClippedSGD)
    assert made.max_norm == 1.0
    group = made.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.9, 0.1)


def test_the_trainer_clips_once_and_asks_for_rows_alone(run, monkeypatch) -> None:
    monkeypatch.setattr(sgd, "LARGE", 0)
    part = run("a", epochs=1)
    part.task.model.table = table = nn.Embedding(5, 8)
    clipped, seen = [], []
    monkeypatch.setattr(part.trainer.fabric, "clip_gradients", clipped.append)
    step = part.task.step

    def noting(model, batch):
        seen.append(table.sparse)
        return step(model, batch)

    part.task.step = noting
    part.go()
    assert (clipped, seen, table.sparse) == ([], [True] * 5, False)
