"""``projected_nll``: every engine against F.linear and F.cross_entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.cpu import kernels, native
from opennmt_sd.ops.portable import nll

Leaves = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def leaves(T: int = 5, B: int = 3, D: int = 8, V: int = 11, dtype=torch.float32) -> Leaves:
    shapes = (T, B, D), (V, D), (V,)
    return tuple(torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes)  # type: ignore


def loss_of(*args: Any, **options: Any) -> Tensor:
    return ops.projected_nll(*args, **options)[0]


def expected(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, targets: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    logits = F.linear(x if keep is None else keep.apply(x), weight, bias).flatten(0, 1)
    loss = F.cross_entropy(
        logits, targets.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
    return loss, (logits.argmax(1) == targets.flatten()).sum()


def grads(loss: Tensor, given: Leaves) -> list[Tensor]:
    return list(torch.autograd.grad(loss, given))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("V", [1, 16, 37, 2100])
@pytest.mark.parametrize("kind", [None, "structured", "fixed", "mask", "fixed mask", "staggered"])
def test_value_hits_and_gradients(
    any_engine: str, kind: str | None, V: int, smoothing: float, draw: Callable[..., Keep | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(nll, "CHUNK", 5 * V)  # parts that do not divide the rows
    given = leaves(V=V)
    x, weight, bias = given
    targets = torch.randint(V, (5, 3))
    with torch.no_grad():  # targets that are hit, some of them
        logits = F.linear(x, weight, bias)
        targets[:2] = logits[:2].argmax(-1)
    keep = None if kind is None else draw(kind, 0.5, 5, 3, 8)
    ours, correct = ops.projected_nll(x, keep, weight, bias, targets, label_smoothing=smoothing)
    # In double precision: float32 sums over 2,100 classes differ by some 1e-5, torch's the most.
    double: Leaves = tuple(t.detach().double().requires_grad_() for t in given)  # type: ignore
    theirs, hits = expected(double[0], keep, *double[1:], targets, smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=5e-5, check_dtype=False)
    assert (correct.dtype, correct.item()) == (torch.int64, hits.item())
    for got, want in zip(grads(ours, given), grads(theirs, double)):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=5e-5, check_dtype=False)


@pytest.mark.parametrize("kind", [None, "structured", "mask"])
def test_packed_rows(any_engine: str, kind: str | None, draw: Callable[..., Keep | None]) -> None:
    sizes, (x, weight, bias) = [3, 2, 2, 1], leaves(T=4)
    alive = torch.arange(3) < torch.tensor(sizes)[:, None]  # [T, B]
    targets = torch.randint(11, (4, 3))
    keep = None if kind is None else draw(kind, 0.5, 4, 3, 8)
    ours, correct = ops.projected_nll(
        x[alive], keep, weight, bias, targets[alive], batch_sizes=torch.tensor(sizes)
    )
    logits = F.linear(x if keep is None else keep.apply(x), weight, bias)[alive]
    theirs = F.cross_entropy(logits, targets[alive], reduction="sum")
    torch.testing.assert_close(ours, theirs)
    assert correct == (logits.argmax(1) == targets[alive]).sum()
    for got, want in zip(grads(ours, (x, weight, bias)), grads(theirs, (x, weight, bias))):
        torch.testing.assert_close(got, want)


def test_the_first_of_equal_logits_is_the_largest(any_engine: str) -> None:
    x, weight, bias = torch.zeros(2, 1, 3), torch.zeros(40, 3), torch.zeros(40)
    bias[[7, 30]] = 1.0
    targets = torch.tensor([[7], [30]])
    assert ops.projected_nll(x, None, weight, bias, targets)[1] == 1
    assert ops.projected_nll(x, None, weight, bias, targets.flip(0))[1] == 1


def test_without_bias_and_with_a_factor(any_engine: str) -> None:
    x, weight, _ = leaves()
    targets = torch.randint(11, (5, 3))
    ours = loss_of(x, None, weight, None, targets, factor=0.25)
    theirs = expected(x, None, weight, None, targets)[0] * 0.25
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(
        torch.autograd.grad(ours, (x, weight)), torch.autograd.grad(theirs, (x, weight))
    ):
        torch.testing.assert_close(got, want)


def test_gradient_of_a_multiple_twice(any_engine: str) -> None:
    given = leaves()
    targets = torch.randint(11, (5, 3))
    keep = DropoutPattern(0.5).draw(5, 3, 8)
    ours = loss_of(given[0], keep, *given[1:], targets, factor=0.3)
    want = grads(0.9 * expected(given[0], keep, *given[1:], targets)[0], given)
    for _ in range(2):  # the buffer must survive the first pass
        for got, w in zip(torch.autograd.grad(3 * ours, given, retain_graph=True), want):
            torch.testing.assert_close(got, w)


def test_only_what_is_asked_for(any_engine: str) -> None:
    x, weight, bias = leaves()
    targets = torch.randint(11, (5, 3))
    want = grads(expected(x, None, weight, bias, targets)[0], (x, weight, bias))
    for k, name in enumerate(("x", "weight", "bias")):
        given = [t.detach() for t in (x, weight, bias)]
        given[k].requires_grad_()
        loss_of(given[0], None, *given[1:], targets).backward()
        torch.testing.assert_close(given[k].grad, want[k], msg=name)


def test_gradcheck(any_engine: str) -> None:
    targets = torch.randint(7, (3, 2))
    keep = DropoutPattern(0.4).draw(3, 2, 4)
    given = leaves(3, 2, 4, 7, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w, b: loss_of(x, keep, w, b, targets, label_smoothing=0.2, factor=0.7), given
    )


@pytest.mark.parametrize("T", [0, 1])
def test_no_rows(any_engine: str, T: int) -> None:
    x, weight, bias = torch.ones(T, 0, 8, requires_grad=True), *leaves()[1:]
    loss, correct = ops.projected_nll(x, None, weight, bias, torch.zeros(T, 0, dtype=torch.int64))
    assert (loss.item(), correct.item()) == (0.0, 0)
    for got in grads(loss, (x, weight, bias)):
        assert not got.any()


@pytest.mark.parametrize(
    "row",
    [
        [1e4, -1e4, 0.0, 1e4],
        [88.0, 89.0, 90.0, -200.0],
        [-torch.inf, 1.0, 2.0, 3.0],
        [1.0, -torch.inf, -torch.inf, 0.0],
        [-torch.inf] * 4,
        [torch.inf, 1.0, 2.0, 3.0],
        [torch.nan, 1.0, 2.0, 3.0],
        [3e38, -3e38, 0.0, 1.0],
    ],
    ids=lambda row: ",".join(f"{v:g}" for v in row),
)
@pytest.mark.parametrize("wide", [1, 25], ids=["4 words", "100 words"])
@pytest.mark.parametrize("target", [0, 3])
def test_extreme_logits(any_engine: str, row: list[float], wide: int, target: int) -> None:
    # The bias alone makes the logits, so that they are what is said here.
    x, weight = torch.zeros(2, 1, 1), torch.zeros(4 * wide, 1)
    bias = torch.tensor(row * wide, requires_grad=True)
    targets = torch.tensor([[target], [1]])
    values, gradients = [], []
    for f in (loss_of, lambda *given: expected(*given)[0]):
        value = f(x, None, weight, bias, targets)
        values.append(value)
        gradients.append(torch.autograd.grad(value, bias)[0])
    torch.testing.assert_close(*values, equal_nan=True)
    torch.testing.assert_close(*gradients, equal_nan=True)


def test_one_buffer_of_logits_is_kept(engine: str) -> None:
    x, weight, bias = leaves()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with ops.use(engine), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(x, None, weight, bias, torch.randint(11, (5, 3)))
    assert len({t.untyped_storage().data_ptr() for t in saved if t.numel() == 5 * 3 * 11}) == 1


def test_without_grad_it_is_the_same_value(any_engine: str) -> None:
    x, weight, bias = leaves()
    targets = torch.randint(11, (5, 3))
    with torch.no_grad():
        quiet = loss_of(x, None, weight, bias, targets)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, loss_of(x, None, weight, bias, targets))


@pytest.mark.skipif(native() is None, reason="the native module was not built")
def test_without_grad_no_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    factors, real = [], kernels.nll_

    def recorded(*args: Any) -> tuple[Tensor, Tensor]:
        factors.append(args[-1])
        return real(*args)

    monkeypatch.setattr(kernels, "nll_", recorded)
    x, weight, bias = leaves()
    with ops.use("cpu"):
        for recording in (False, True):
            with torch.set_grad_enabled(recording):
                loss_of(x, None, weight, bias, torch.randint(11, (5, 3)))
    assert factors == [0.0, 1.0]


def test_under_autocast_sums_are_float32() -> None:
    given = leaves(V=40)
    targets = torch.randint(40, (5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        ours = loss_of(given[0], None, *given[1:], targets)
    assert ours.dtype == torch.float32
    theirs, _ = expected(given[0], None, *given[1:], targets)
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-2)  # logits in bfloat16
    for got, want in zip(grads(ours, given), grads(theirs, given)):
        torch.testing.assert_close(got, want, rtol=5e-2, atol=5e-2)


def test_half_precision_keeps_small_gradients_for_a_scaler() -> None:
    rows, V = 1000, 4000
    x = torch.zeros(1, rows, 1, dtype=torch.float16)
    weight, bias = (torch.zeros(shape, dtype=torch.float16) for shape in ((V, 1), (V,)))
    bias.requires_grad_()
    targets = torch.zeros(1, rows, dtype=torch.int64)
    # 1 / V / rows is four times the least float16: rounded there, a scaler could not restore it.
    loss = loss_of(x, None, weight, bias, targets, factor=1 / rows)
    (grad,) = torch.autograd.grad(loss * 2**14, bias)
    torch.testing.assert_close(grad[1:].float(), torch.full((V - 1,), 2**14 / V), rtol=1e-2, atol=0)


def test_naive_engine_has_double_backward() -> None:
    given, targets = leaves(2, 1, 3, 4, torch.float64), torch.randint(4, (2, 1))
    with ops.use("naive"):
        assert torch.autograd.gradgradcheck(lambda x, w, b: loss_of(x, None, w, b, targets), given)


def test_the_others_say_that_they_have_none(engine: str) -> None:
    given, targets = leaves(2, 1, 3, 4, torch.float64), torch.randint(4, (2, 1))
    with ops.use(engine):
        loss = loss_of(given[0], None, *given[1:], targets)
        if engine == "dense":  # torch's own
            run = lambda x, w, b: loss_of(x, None, w, b, targets)  # noqa: E731
            assert torch.autograd.gradgradcheck(run, given)
            return
    with pytest.raises(RuntimeError) as error:
        torch.autograd.grad(loss, given, create_graph=True)
    assert str(error.value) == (
        f"double backward (create_graph=True) is not supported by the {engine} engine: run the "
        "forward pass under opennmt_sd.ops.use('naive'), which supports it"
    )


@pytest.mark.parametrize("target", [-100, -1, 11])
def test_a_target_outside_the_vocabulary(any_engine: str, target: int) -> None:
    x, weight, bias = leaves()
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        ops.projected_nll(x, None, weight, bias, torch.full((5, 3), target))


def test_hits_that_nobody_reads(any_engine: str, draw: Callable[..., Keep | None]) -> None:
    """Loss and gradients are the same bits; in place of the hits comes a number of their kind."""
    given, targets, keep = leaves(), torch.randint(11, (5, 3)), draw("structured", 0.5, 5, 3, 8)
    x, weight, bias = given
    (loss, hits), (again, nothing) = (
        ops.projected_nll(x, keep, weight, bias, targets, factor=0.3, hits=read)
        for read in (True, False)
    )
    assert (nothing.shape, nothing.dtype) == (hits.shape, hits.dtype) == ((), torch.int64)
    assert torch.equal(loss, again)
    assert all(map(torch.equal, grads(loss, given), grads(again, given)))


@pytest.mark.parametrize("engine", ["dense", "naive"])
def test_hits_that_nobody_reads_are_not_looked_for(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over all logits, which a GPU need not make."""
    x, weight, bias = leaves()
    targets, looked = torch.randint(11, (5, 3)), []
    argmax = Tensor.argmax
    monkeypatch.setattr(Tensor, "argmax", lambda *a, **k: looked.append(1) or argmax(*a, **k))
    with ops.use(engine):
        for read in (False, True):
            ops.projected_nll(x, None, weight, bias, targets, hits=read)
            assert len(looked) == read
