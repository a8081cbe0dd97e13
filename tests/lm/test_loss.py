"""The loss that consumes its logits, against F.linear and F.cross_entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.dropout import Keep
from opennmt_sd.lm import loss as module
from opennmt_sd.lm.loss import projected_nll

Leaves = tuple[Tensor, Tensor, Tensor]


def leaves(T: int = 5, B: int = 3, D: int = 8, V: int = 11, dtype=torch.float32) -> Leaves:
    shapes = (T, B, D), (V, D), (V,)
    return tuple(torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes)  # type: ignore


def expected(x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, targets: Tensor):
    logits = F.linear(x if keep is None else keep.apply(x), weight, bias)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def grads(loss: Tensor, given: Leaves) -> list[Tensor]:
    return list(torch.autograd.grad(loss, given))


@pytest.mark.parametrize("chunk", [1, 25, 10**9], ids=lambda c: f"chunk {c}")
@pytest.mark.parametrize(
    "pattern",
    [None, *(DropoutPattern(0.5, s, t) for s in ("structured", "random")
             for t in ("random", "fixed"))],
    ids=["all kept", "III", "IV", "I", "II"],
)  # fmt: skip
def test_value_and_gradients(
    pattern: DropoutPattern | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    given = leaves()
    x, weight, bias = given
    targets = torch.randint(11, (5, 3))
    keep = pattern and pattern.draw(5, 3, 8)
    ours = projected_nll(x, keep, weight, bias, targets)
    theirs = expected(x, keep, weight, bias, targets)
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(grads(ours, given), grads(theirs, given)):
        torch.testing.assert_close(got, want)


def test_without_bias_and_with_a_factor() -> None:
    x, weight, _ = leaves()
    targets = torch.randint(11, (5, 3))
    ours = projected_nll(x, None, weight, None, targets, factor=0.25)
    theirs = expected(x, None, weight, None, targets) * 15 * 0.25
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(
        torch.autograd.grad(ours, (x, weight)), torch.autograd.grad(theirs, (x, weight))
    ):
        torch.testing.assert_close(got, want)


def test_gradient_of_a_multiple_twice() -> None:
    given = leaves()
    targets = torch.randint(11, (5, 3))
    ours, theirs = (f(given[0], None, *given[1:], targets) for f in (projected_nll, expected))
    want = grads(3 * theirs, given)
    for _ in range(2):  # the buffer must survive the first pass
        for got, w in zip(torch.autograd.grad(3 * ours, given, retain_graph=True), want):
            torch.testing.assert_close(got, w)


def test_gradcheck() -> None:
    targets = torch.randint(7, (3, 2))
    keep = DropoutPattern(0.4).draw(3, 2, 4)
    given = leaves(3, 2, 4, 7, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w, b: projected_nll(x, keep, w, b, targets, factor=0.7), given
    )


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
@pytest.mark.parametrize("target", [0, 3])
def test_extreme_logits(row: list[float], target: int) -> None:
    # The bias alone makes the logits, so that they are what is said here.
    given = torch.zeros(2, 1, 1), torch.zeros(4, 1), torch.tensor(row, requires_grad=True)
    targets = torch.tensor([[target], [1]])
    values, gradients = [], []
    for f in (projected_nll, expected):
        value = f(given[0], None, *given[1:], targets)
        values.append(value)
        gradients.append(torch.autograd.grad(value, given[2])[0])
    torch.testing.assert_close(*values, equal_nan=True)
    torch.testing.assert_close(*gradients, equal_nan=True)


def test_one_buffer_is_kept_and_the_gradient_is_it() -> None:
    x, weight, bias = leaves()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = projected_nll(x, None, weight, bias, torch.randint(11, (5, 3)))
    buffers = {t.untyped_storage().data_ptr() for t in saved if t.numel() == 5 * 3 * 11}
    assert len(buffers) == 1
    handed: list[Tensor] = []
    loss.grad_fn.register_hook(lambda grads, _: handed.append(grads[0]))
    loss.backward()
    assert {d_logits.untyped_storage().data_ptr() for d_logits in handed} == buffers


def test_without_grad_it_is_the_same_value() -> None:
    x, weight, bias = leaves()
    targets = torch.randint(11, (5, 3))
    with torch.no_grad():
        quiet = projected_nll(x, None, weight, bias, targets)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, projected_nll(x, None, weight, bias, targets))


def test_under_autocast_sums_are_float32() -> None:
    given = leaves(V=40)
    targets = torch.randint(40, (5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        ours = projected_nll(given[0], None, *given[1:], targets)
    assert ours.dtype == torch.float32
    theirs = expected(given[0], None, *given[1:], targets)
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-2)  # logits in bfloat16
    for got, want in zip(grads(ours, given), grads(theirs, given)):
        torch.testing.assert_close(got, want, rtol=5e-2, atol=1e-2)


def test_half_precision_keeps_small_gradients_for_a_scaler() -> None:
    rows, V = 1000, 4000
    x = torch.zeros(1, rows, 1, dtype=torch.float16)
    weight, bias = (torch.zeros(shape, dtype=torch.float16) for shape in ((V, 1), (V,)))
    bias.requires_grad_()
    # 1 / V / rows is four times the least float16: rounded there, a scaler could not restore it.
    loss = projected_nll(x, None, weight, bias, torch.zeros(1, rows, dtype=torch.int64))
    (grad,) = torch.autograd.grad(loss * 2**14, bias)
    torch.testing.assert_close(grad[1:].float(), torch.full((V - 1,), 2**14 / V), rtol=1e-2, atol=0)


def test_naive_engine_has_double_backward_and_the_others_say_so() -> None:
    given = leaves(2, 1, 3, 4, torch.float64)
    targets = torch.randint(4, (2, 1))
    with ops.use("naive"):
        assert torch.autograd.gradgradcheck(
            lambda x, w, b: projected_nll(x, None, w, b, targets), given
        )
    with pytest.raises(RuntimeError) as error:
        torch.autograd.grad(projected_nll(given[0], None, *given[1:], targets), given,
                            create_graph=True)  # fmt: skip
    assert str(error.value) == (
        "double backward (create_graph=True) is not supported by this loss: run the forward pass "
        "under opennmt_sd.ops.use('naive'), which supports it"
    )


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (torch.zeros(15, dtype=torch.int64), "torch.int64 [15]"),
        (torch.zeros(5, 3, dtype=torch.int32), "torch.int32 [5, 3]"),
    ],
    ids=["shape", "dtype"],
)
def test_wrong_targets(targets: Tensor, found: str) -> None:
    x, weight, bias = leaves()
    with pytest.raises(ValueError) as error:
        projected_nll(x, None, weight, bias, targets)
    assert str(error.value) == (f"targets must be int64 [5, 3], one for each row of x; got {found}")


@pytest.mark.parametrize("target", [-1, 11])
def test_a_target_outside_the_vocabulary(target: int) -> None:
    x, weight, bias = leaves()
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        projected_nll(x, None, weight, bias, torch.full((5, 3), target))
