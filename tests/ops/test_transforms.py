"""``torch.func`` and forward mode: each op is differentiated by them, on whatever engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredGRU,
    StructuredGRUCell,
    StructuredLSTM,
    StructuredLSTMCell,
    ops,
)

T, B, D = 3, 2, 4
Op = Callable[[Tensor], Tensor]


@cache  # made before a transform, in which nothing random may be
def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@cache
def keep_of(space: str = "structured"):
    return DropoutPattern(0.5, space).draw(T, B, D, torch.Generator().manual_seed(2))


def stepwise(x: Tensor) -> Tensor:
    handle = ops.prepare(randn(5, D), randn(5))
    keep = keep_of()
    return torch.stack([ops.masked_linear_step(handle, x[t], keep, t) for t in range(T)])


def attention(x: Tensor) -> Tensor:
    handle = ops.prepare_memory(x.transpose(0, 1), torch.tensor([3, 2]))
    context, weights = ops.attend_step(handle, x[1])
    return torch.cat([context, weights], 1)


def layer(x: Tensor) -> Tensor:
    w, state = randn(4 * D, D), randn(B, D)
    return torch.cat(ops.lstm_layer(x, keep_of(), w, None, w, state, state, keep_of())[:1])


def gru(x: Tensor) -> Tensor:
    w, state = randn(3 * D, D), randn(B, D)
    return ops.gru_layer(x, keep_of(), w, None, w, randn(D), state, keep_of())[0]


def gru_gates(x: Tensor) -> Tensor:
    rows = x.flatten(0, 1)  # [T B, D]
    return ops.gru_gates(rows[:, :3], rows[:, 1:], rows[:, :1])


def loss(x: Tensor) -> Tensor:
    return ops.projected_nll(x, keep_of(), randn(6, D), None, torch.ones(T, B).long())[0]


OPS: dict[str, Op] = {
    "linear": lambda x: ops.masked_linear(x, keep_of(), randn(5, D), randn(5)),
    "linear, mask": lambda x: ops.masked_linear(x, keep_of("random"), randn(5, D)),
    "layer": layer,
    "gates": lambda x: torch.cat(ops.lstm_gates(x.flatten(0, 1), x.flatten(0, 1)[:, :1])),
    "GRU": gru,
    "GRU's gates": gru_gates,
    "loss": loss,
    "stepwise": stepwise,
    "attention": attention,
}
every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


def numeric(op: Op, x: Tensor, tangent: Tensor) -> Tensor:
    """The derivative of op in a direction, by a difference."""
    step = 1e-6
    return (op(x + step * tangent) - op(x - step * tangent)) / (2 * step)


@every_op
@pytest.mark.parametrize("frozen", [False, True], ids=["recorded", "no_grad"])
def test_forward_mode(any_engine: str, op: Op, frozen: bool) -> None:
    x, tangent = randn(T, B, D), randn(T, B, D).cos()
    want = numeric(op, x, tangent)
    with torch.set_grad_enabled(not frozen):
        y, dy = jvp(op, (x,), (tangent,))
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(op(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(y, op(x))
    torch.testing.assert_close(dy, want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dual.tangent, want, rtol=1e-6, atol=1e-6)


@every_op
def test_transforms_of_backward(any_engine: str, op: Op) -> None:
    x = randn(T, B, D)
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(op(leaf).sum(), leaf)
    for got in (
        grad(lambda x: op(x).sum())(x),
        vjp(op, x)[1](torch.ones_like(op(x)))[0],
        jacrev(lambda x: op(x).sum())(x),
        jacfwd(lambda x: op(x).sum())(x),
        vmap(grad(lambda x: op(x).sum()))(torch.stack([x, x + 1]))[0],
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("width", [8, 256])
@pytest.mark.parametrize("kind", ["linear", "lstm", "recurrent", "cell", "gru", "gru cell"])
def test_per_sample_gradients(kind: str, width: int) -> None:
    """In training, of any size: each sample's gradient is the one it has alone."""
    torch.manual_seed(0)
    half = DropoutPattern(0.5)
    model: nn.Module = {
        "linear": lambda: MaskedLinear(width, width),
        "lstm": lambda: StructuredLSTM(width, width, 2, dropout=half, input_dropout=half),
        "recurrent": lambda: StructuredLSTM(width, width, recurrent_dropout=half),
        "cell": lambda: StructuredLSTMCell(width, width, input_dropout=half),
        "gru": lambda: StructuredGRU(width, width, input_dropout=half, recurrent_dropout=half),
        "gru cell": lambda: StructuredGRUCell(width, width, recurrent_dropout=half),
    }[kind]()
    steps, samples = 20, 4
    x = torch.randn(steps, samples, width)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def score(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        y = functional_call(model, weights, (x[0, None] if "cell" in kind else x[:, None],))
        return (y[0] if isinstance(y, tuple) else y).square().sum()

    seeded = [torch.manual_seed(3), vmap(grad(score), (None, 1), randomness="same")(weights, x)][1]
    for n in (0, 3):
        torch.manual_seed(3)
        alone = grad(score)(weights, x[:, n])
        for name, want in alone.items():
            torch.testing.assert_close(seeded[name][n], want, rtol=1e-4, atol=1e-4)


def test_every_sample_may_have_its_own_draw() -> None:
    model = MaskedLinear(64, 3, dropout=0.5)
    x = torch.ones(2, 5, 64)
    dx = vmap(grad(lambda x: model(x[:, None]).sum()), 1, randomness="different")(x)
    assert len({tuple(row.tolist()) for row in (dx == 0)[:, 0]}) == 5
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda x: model(x[:, None]), 1)(x)


def test_a_handle_from_outside_is_refused(engine: str) -> None:
    x, memory = randn(B, D), randn(B, 3, D)
    text = (
        "torch.func and forward mode are supported by the naive engine alone: call {} inside of "
        "them too, or under opennmt_sd.ops.use('naive')"
    )
    for name in (engine, "naive"):
        with ops.use(name):
            weight, attended = ops.prepare(randn(5, D)), ops.prepare_memory(memory)

        def step(x: Tensor, weight=weight) -> Tensor:
            return ops.masked_linear_step(weight, x)

        def attend(x: Tensor, attended=attended) -> Tensor:
            return ops.attend_step(attended, x)[0]

        for run, made_by in ((step, "prepare"), (attend, "prepare_memory")):
            if name == "naive":  # what the text names
                _, tangent = jvp(run, (x,), (x,))
                torch.testing.assert_close(tangent, numeric(run, x, x), rtol=1e-6, atol=1e-6)
                continue
            for transformed in (lambda r: jvp(r, (x,), (x,)), lambda r: vmap(r)(x[None])):
                with pytest.raises(RuntimeError) as error:
                    transformed(run)
                assert str(error.value) == text.format(made_by)


@pytest.mark.parametrize("name", OPS)
def test_forward_mode_through_a_backward_pass_is_refused(engine: str, name: str) -> None:
    """But where the dense engine is torch's own, which knows it."""
    x, op = randn(T, B, D).clone().requires_grad_(), OPS[name]
    if engine == "dense" and name in TORCHS:
        return
    with ops.use(engine):
        y = op(x)
    with forward_ad.dual_level(), pytest.raises(RuntimeError) as error:
        torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y)))
    assert str(error.value) == (
        f"forward mode through a backward pass is not supported by the {engine} engine: run the "
        "forward pass under opennmt_sd.ops.use('naive'), which supports it"
    )


TORCHS = {"linear", "linear, mask", "gates", "GRU's gates", "loss"}
ONE_AT_A_TIME = {("dense", "layer"), ("dense", "GRU"),
                 ("cpu", "gates"), ("cpu", "GRU's gates"), ("cpu", "loss"), ("cpu", "attention"),
                 ("portable", "layer"), ("portable", "GRU")}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_a_batch_of_gradients_is_right_or_refused(engine: str, name: str) -> None:
    """As ``jacobian(..., vectorize=True)`` asks for one."""
    x, results = randn(T, B, D).clone().requires_grad_(), []
    for used in ("naive", engine):
        with ops.use(used):
            y = OPS[name](x)
        v = torch.stack([torch.ones_like(y), y.detach().cos()])
        if (used, name) in ONE_AT_A_TIME:
            with pytest.raises(RuntimeError) as error:
                torch.autograd.grad(y, x, v, is_grads_batched=True)
            assert str(error.value) == (
                f"a batch of gradients (is_grads_batched=True) is not supported by the {engine} "
                "engine: run the forward pass under opennmt_sd.ops.use('naive'), which supports it"
            )
        else:
            results.append(torch.autograd.grad(y, x, v, is_grads_batched=True)[0])
    for got in results[1:]:
        torch.testing.assert_close(got, results[0])
