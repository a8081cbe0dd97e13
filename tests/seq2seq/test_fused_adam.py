"""The fused Adam: Adam's numbers, Adam's checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from opennmt_sd.seq2seq.fused_adam import HAS_FUSED_ADAM, FusedAdam

pytestmark = pytest.mark.skipif(not HAS_FUSED_ADAM, reason="torch < 2.4 has no fused CPU Adam")

Make = Callable[[], tuple[list[nn.Parameter], torch.optim.Adam]]


@pytest.fixture
def make() -> Make:
    def make() -> tuple[list[nn.Parameter], torch.optim.Adam]:
        g = torch.Generator().manual_seed(1)
        weights = [nn.Parameter(torch.randn(shape, generator=g)) for shape in ((7, 5), (3,))]
        return weights, torch.optim.Adam(weights, lr=0.01, betas=(0.9, 0.998), eps=1e-8)

    return make


def train(weights: list[nn.Parameter], optimizer: torch.optim.Adam, steps: range) -> None:
    for step in steps:
        for k, weight in enumerate(weights):
            weight.grad = torch.sin(weight.detach() * (step + k + 1))
        optimizer.step()


def state(optimizer: torch.optim.Adam) -> list[Tensor]:
    return [value for kept in optimizer.state_dict()["state"].values() for value in kept.values()]


def test_it_moves_weights_as_adam_does(make: Make) -> None:
    (stock, adam), (ours, fused) = make(), make()
    FusedAdam.take_over(fused)
    assert type(fused) is FusedAdam
    for weights, optimizer in ((stock, adam), (ours, fused)):
        train(weights, optimizer, range(20))
    torch.testing.assert_close(ours, stock)
    torch.testing.assert_close(state(fused), state(adam))


def test_a_checkpoint_is_adams(make: Make) -> None:
    (stock, adam), (ours, fused) = make(), make()
    FusedAdam.take_over(fused)
    train(stock, adam, range(3))
    train(ours, fused, range(3))
    assert fused.state_dict()["param_groups"] == adam.state_dict()["param_groups"]
    weights, resumed = make()
    with torch.no_grad():
        for weight, kept in zip(weights, ours):
            weight.copy_(kept)
    resumed.load_state_dict(copy.deepcopy(fused.state_dict()))
    train(weights, resumed, range(3, 6))
    train(stock, adam, range(3, 6))
    torch.testing.assert_close(weights, stock)


def test_it_is_the_fused_kernel_that_runs(make: Make) -> None:
    weights, fused = make()
    FusedAdam.take_over(fused)
    with torch.profiler.profile() as profile:
        train(weights, fused, range(1))
    assert "aten::_fused_adam_" in {event.key for event in profile.key_averages()}


def test_what_is_no_adam_stays(make: Make) -> None:
    weights, _ = make()
    for other in (torch.optim.SGD(weights, lr=1.0), torch.optim.AdamW(weights)):
        assert type(FusedAdam.take_over(other)) is type(other)


def test_weights_that_are_not_on_the_cpu_stay() -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.empty(2, device="meta"))])
    assert type(FusedAdam.take_over(adam)) is torch.optim.Adam


def test_a_failing_closure_leaves_the_options(make: Make) -> None:
    _, fused = make()
    FusedAdam.take_over(fused)

    def fail() -> float:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        fused.step(fail)
    assert [group["fused"] for group in fused.param_groups] == [None]
