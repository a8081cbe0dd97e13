"""Several backward passes over one prepared handle: each makes the gradient of its own steps."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from opennmt_sd import DropoutPattern, ops

T, B, D = 4, 3, 5


class Loop:
    """A loop over a prepared weight, a prepared memory, or a memory beside a weight."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(1)
        self.weight, self.memory, self.x = (
            torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()
            for shape in ((D, D), (B, 6, D), (B, D))
        )
        self.keep = DropoutPattern(0.5).draw(T, B, D, g)
        self.linear, self.attention = ops.prepare(self.weight), ops.prepare_memory(self.memory)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.weight, self.memory, self.x]

    def step(self, x: Tensor, t: int) -> Tensor:
        y = ops.masked_linear_step(self.linear, x, self.keep, t)
        context, weights = ops.attend_step(self.attention, torch.tanh(y))
        return context + weights.sum() * weights[:, :1]

    def states(self, wrapped: dict[int, bool] | None = None) -> list[Tensor]:
        """Every state; of the steps that ``wrapped`` names, checkpointed (reentrant or not)."""
        states = [self.x]
        for t in range(T):
            if wrapped and t in wrapped:
                y = checkpoint(self.step, states[-1], t, use_reentrant=wrapped[t])
            else:
                y = self.step(states[-1], t)
            states.append(y)
        return states[1:]


def gradients(loss: Tensor, loop: Loop) -> list[Tensor]:
    for leaf in loop.leaves:
        leaf.grad = None
    loss.backward(retain_graph=True)
    return [leaf.grad.clone() for leaf in loop.leaves]


@pytest.fixture
def want(any_engine: str) -> list[Tensor]:
    with ops.use("naive"):
        loop = Loop()
        return gradients(loop.states()[-1].square().sum(), loop)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("steps", [(1,), (0, 2), (3,)], ids=str)
def test_checkpointed_steps(want: list[Tensor], steps: tuple[int, ...], reentrant: bool) -> None:
    loop = Loop()
    states = loop.states(dict.fromkeys(steps, reentrant))
    for got, wanted in zip(gradients(states[-1].square().sum(), loop), want):
        torch.testing.assert_close(got, wanted)


def test_a_pass_within_a_hook(want: list[Tensor]) -> None:
    """Half way through, a hook runs a whole pass over the same steps."""
    loop = Loop()
    states = loop.states()
    half_way, inner = states[1].square().sum(), []

    def hook(_: Tensor) -> None:
        if not inner:
            inner.append(None)
            inner[:] = torch.autograd.grad(half_way, loop.leaves, retain_graph=True)

    states[2].register_hook(hook)
    for got, wanted in zip(gradients(states[-1].square().sum(), loop), want):
        torch.testing.assert_close(got, wanted)
    with ops.use("naive"):
        again = Loop()
        alone = torch.autograd.grad(again.states()[1].square().sum(), again.leaves)
    for got, wanted in zip(inner, alone):
        torch.testing.assert_close(got, wanted)


def test_passes_in_threads(want: list[Tensor]) -> None:
    """They meet half way, so that each leaves steps while the other does."""
    loop = Loop()
    states = loop.states()
    meeting = threading.Barrier(2, timeout=60)
    states[1].register_hook(lambda _: (meeting.wait(), None)[1])
    loss, results = states[-1].square().sum(), []

    def run() -> None:
        results.append(torch.autograd.grad(loss, loop.leaves, retain_graph=True))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for got in results:
        for gradient, wanted in zip(got, want):
            torch.testing.assert_close(gradient, wanted)


def test_a_pass_that_asks_for_less_leaves_nothing(engine: str) -> None:
    """Of the steps of a pass that does not reach the weight, nothing stays in memory."""
    with ops.use(engine):
        loop = Loop()
        loss = loop.states()[-1].sum()
    torch.autograd.grad(loss, loop.x, retain_graph=True)
    for handle in (loop.linear.handle, loop.attention.handle):
        assert handle._steps._left == {}
