"""What all engines share, and how one is chosen."""

from __future__ import annotations

import inspect

import pytest
import torch

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.ops.engines import ENGINES

CONTRACT = ("masked_linear", "lstm", "lstm_layer", "lstm_gates", "prepare", "masked_linear_step")


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures_are_naives(engine: str, name: str) -> None:
    """Names, order, kinds and defaults; what a handle is, is an engine's own business."""
    ours, naives = (
        {n: (p.kind, p.default) for n, p in inspect.signature(getattr(e, name)).parameters.items()}
        for e in (ENGINES[engine], ENGINES["naive"])
    )
    assert list(ours.items()) == list(naives.items())


@pytest.mark.parametrize("name", CONTRACT)
def test_the_public_op_takes_what_the_engines_take(name: str) -> None:
    public, naives = (
        list(inspect.signature(getattr(module, name)).parameters)
        for module in (ops, ENGINES["naive"])
    )
    assert public == naives


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that ran, in order."""
    ran: list[str] = []
    for name, module in ENGINES.items():

        def gates(*given, name=name, real=module.lstm_gates):
            ran.append(name)
            return real(*given)

        monkeypatch.setattr(module, "lstm_gates", gates)
    return ran


def step() -> None:
    ops.lstm_gates(torch.zeros(3, 8), torch.zeros(3, 2))


def test_use_as_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = spied(monkeypatch)
    automatic = ops.engine_for("cpu", torch.float32)
    step()
    ops.use("naive")
    assert ops.forced() == ops.engine_for("cpu", torch.float32) == "naive"
    step()
    ops.use("auto")
    assert ops.forced() is None
    assert ops.engine_for("cpu", torch.float32) == automatic
    step()
    assert ran == [automatic, "naive", automatic]
    assert automatic != "naive", "naive is for tests: never chosen by itself"


def test_use_around_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = spied(monkeypatch)
    with ops.use("naive"):
        step()
        with ops.use("portable"):
            step()
        step()
    assert ran == ["naive", "portable", "naive"]
    assert ops.forced() is None


def test_use_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), ops.use("naive"):
        1 / 0  # noqa: B018
    assert ops.forced() is None


def test_an_unknown_engine_changes_nothing() -> None:
    ops.use("naive")
    with pytest.raises(ValueError) as error:
        ops.use("cuda")
    assert str(error.value) == (
        f"there is no engine 'cuda': use one of auto, {', '.join(sorted(ENGINES))}"
    )
    assert ops.forced() == "naive"


def test_the_backward_pass_stays_with_its_engine(engine: str) -> None:
    keep = DropoutPattern(0.5).draw(2, 2, 2)
    x = torch.ones(2, 2, 2, requires_grad=True)
    with ops.use(engine):
        y = ops.masked_linear(x, keep, torch.ones(3, 2, requires_grad=True))
    ops.use("naive")
    with pytest.raises(RuntimeError, match=f"not supported by the {engine} engine"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("time", ["random", "fixed"])
def test_one_seed_gives_the_same_bits(any_engine: str, space: str, time: str) -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(5)
        pattern = DropoutPattern(0.5, space, time)
        x, w = torch.randn(6, 4, 33), torch.randn(4 * 17, 33) / 6
        w_hh, state = torch.randn(4 * 17, 17) / 4, torch.zeros(4, 17)
        leaves = [t.requires_grad_() for t in (x, w, w_hh)]
        gates = ops.masked_linear(x, pattern.draw(6, 4, 33), w)
        y, h, c = ops.lstm(gates, w_hh, state, state, pattern.draw(6, 4, 17))
        keeps = pattern.draw(6, 4, 33), pattern.draw(6, 4, 17)
        outputs = [y, h, c, *ops.lstm_layer(x, keeps[0], w, None, w_hh, state, state, keeps[1])]
        return [*outputs, *torch.autograd.grad(sum(t.sum() for t in outputs), leaves)]

    for first, again in zip(run(), run()):
        assert torch.equal(first, again)


@pytest.mark.parametrize("space", ["structured", "random"])
@pytest.mark.parametrize("time", ["random", "fixed"])
def test_one_seed_drops_the_same_on_every_engine(engine: str, space: str, time: str) -> None:
    x, w = torch.ones(6, 4, 33, requires_grad=True), torch.ones(2, 33)
    dropped = []
    for name in (engine, "naive"):
        torch.manual_seed(5)
        with ops.use(name):
            y = ops.masked_linear(x, DropoutPattern(0.5, space, time).draw(6, 4, 33), w)
        dropped.append(torch.autograd.grad(y.sum(), x)[0] == 0)
    assert torch.equal(*dropped)
