"""``prepare_memory`` and ``attend_step``: every engine against plain autograd."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.naive.attention import attend

B, S, D, T = 3, 5, 7, 4
LENGTHS = {"whole": None, "padded": [5, 1, 3], "of length 1": [1, 1, 1]}
Attend = Callable[[Tensor], tuple[Tensor, Tensor]]


def leaves(
    b: int = B, s: int = S, d: int = D, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    shapes = {"memory": (b, s, d), "query": (b, d)}
    return {
        name: (torch.randn(shape, generator=g, dtype=torch.float64) * d**-0.25)
        .to(dtype)
        .requires_grad_()
        for name, shape in shapes.items()
    }


def loop(attend: Attend, query: Tensor, steps: int = T) -> Tensor:
    """Each query needs the context before it; contexts and weights ``[steps, B, D + S]``."""
    found = []
    for _ in range(steps):
        context, weights = attend(query)
        query = torch.tanh(query + context)
        found.append(torch.cat([context, weights], 1))
    return torch.stack(found)


def ours(given: dict[str, Tensor], lengths: list[int] | None, steps: int = T) -> Tensor:
    handle = ops.prepare_memory(given["memory"], _tensor(lengths))
    return loop(lambda query: ops.attend_step(handle, query), given["query"], steps)


def reference(given: dict[str, Tensor], lengths: list[int] | None, steps: int = T) -> Tensor:
    memory = given["memory"]
    ends = [memory.shape[1]] * len(memory) if lengths is None else lengths

    def attend(query: Tensor) -> tuple[Tensor, Tensor]:
        contexts, rows = [], []
        for b, end in enumerate(ends):
            weights = torch.softmax(memory[b, :end] @ query[b], 0)
            contexts.append(weights @ memory[b, :end])
            rows.append(torch.cat([weights, weights.new_zeros(memory.shape[1] - end)]))
        return torch.stack(contexts), torch.stack(rows)

    return loop(attend, given["query"], steps)


def _tensor(lengths: list[int] | None) -> Tensor | None:
    return None if lengths is None else torch.tensor(lengths, dtype=torch.int64)


def grads(y: Tensor, given: dict[str, Tensor], **options: Any) -> list[Tensor]:
    return list(torch.autograd.grad(y, list(given.values()), torch.cos(y.detach()), **options))


@pytest.mark.parametrize("size", [(3, 5, 7), (1, 1, 1), (2, 37, 70), (5, 2, 64)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_plain_autograd(
    any_engine: str, size: tuple[int, ...], lengths: str, dtype: torch.dtype
) -> None:
    b, s, _ = size
    ends = LENGTHS[lengths] and [min(s, (LENGTHS[lengths] * b)[i]) for i in range(b)]
    given = leaves(*size, dtype=dtype)
    got, want = (f(given, ends) for f in (ours, reference))
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(grads(got, given), grads(want, given)):
        torch.testing.assert_close(mine, theirs)


def test_sequences_that_end(any_engine: str) -> None:
    """Each step asks for fewer of the memories than the one before."""
    given = leaves()

    def run(attend: Attend) -> Tensor:
        query, found = given["query"], []
        for n in (3, 3, 2, 1):
            context, weights = attend(query[:n])
            query = torch.tanh(query[:n] + context)
            found += [context.flatten(), weights.flatten()]
        return torch.cat(found)

    lengths = torch.tensor([5, 1, 3])
    handle = ops.prepare_memory(given["memory"], lengths)
    got = run(lambda query: ops.attend_step(handle, query))
    want = run(lambda query: attend(given["memory"][: len(query)], lengths[: len(query)], query))
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(grads(got, given), grads(want, given)):
        torch.testing.assert_close(mine, theirs)


def test_gradcheck(any_engine: str) -> None:
    given = leaves()
    assert torch.autograd.gradcheck(
        lambda memory, query: ours({"memory": memory, "query": query}, [5, 1, 3], 2),
        tuple(given.values()),
        fast_mode=True,
    )


@pytest.mark.parametrize("frozen", ["memory", "query"])
def test_a_frozen_input_gets_no_gradient(any_engine: str, frozen: str) -> None:
    given = leaves()
    other = next(name for name in given if name != frozen)
    want = grads(reference(given, None), given)[list(given).index(other)]
    given[frozen].requires_grad_(False)
    y = ours(given, None)
    y.backward(torch.cos(y.detach()))
    assert given[frozen].grad is None
    torch.testing.assert_close(given[other].grad, want)


def test_padding_is_never_read(any_engine: str) -> None:
    given = leaves()
    with torch.no_grad():
        given["memory"][1, 1:] = torch.nan
    handle = ops.prepare_memory(given["memory"][1:2].detach(), torch.tensor([1]))
    if any_engine != "cpu":
        pytest.skip("torch multiplies padding by a weight of zero, as OpenNMT-py does")
    context, weights = ops.attend_step(handle, given["query"][1:2])
    assert weights.tolist() == [[1.0, 0, 0, 0, 0]]
    torch.testing.assert_close(context, given["memory"][1:2, 0])


def test_retained_and_in_two_parts(any_engine: str) -> None:
    given = leaves()
    y, z = (f(given, [5, 1, 3]) for f in (ours, reference))
    want = grads(z, given, retain_graph=True)
    for _ in range(2):
        for mine, theirs in zip(grads(y, given, retain_graph=True), want):
            torch.testing.assert_close(mine, theirs)
    for part in (slice(0, 2), slice(2, 4)):
        got, want = (grads(x[part], given, retain_graph=True) for x in (y, z))
        for mine, theirs in zip(got, want):
            torch.testing.assert_close(mine, theirs)


def test_a_pass_for_the_query_alone_leaves_nothing_behind(any_engine: str) -> None:
    given = leaves()
    y, z = (f(given, None) for f in (ours, reference))
    torch.autograd.grad(y.sum(), given["query"], retain_graph=True)
    for mine, theirs in zip(grads(y[:2], given), grads(z[:2], given)):
        torch.testing.assert_close(mine, theirs)


def test_nothing_outlives_a_pass(any_engine: str) -> None:
    given = leaves()
    y = ours(given, None)
    seen = weakref.ref(y)
    y.sum().backward()
    gc.disable()
    try:
        del y
        assert seen() is None
    finally:
        gc.enable()


def test_a_memory_changed_in_place_is_an_error(any_engine: str) -> None:
    """Its steps read it once more on their way back."""
    given = leaves()
    y = ours(given, None)
    with torch.no_grad():
        given["memory"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grads(y, given)


def test_a_memory_that_is_not_contiguous(any_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, and without a copy at each step."""
    seen = []

    @staticmethod
    def recorded(memory: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        seen.append(memory.is_contiguous())
        return kernels.attend_fp(memory, *args)

    monkeypatch.setattr("opennmt_sd.ops.cpu.attention._Kernels.fp", recorded)
    given = leaves()
    across = {**given, "memory": given["memory"].transpose(0, 1).contiguous().transpose(0, 1)}
    assert not across["memory"].is_contiguous()
    got, want = ours(across, [5, 1, 3]), reference(given, [5, 1, 3])
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(grads(got, given), grads(want, given)):
        torch.testing.assert_close(mine, theirs)
    assert seen == ([True] * T if any_engine == "cpu" else [])


def test_without_gradients(any_engine: str) -> None:
    given = leaves()
    with torch.no_grad():
        got = ours(given, [5, 1, 3])
    assert not got.requires_grad
    torch.testing.assert_close(got, reference(given, [5, 1, 3]))


def test_no_batch(any_engine: str) -> None:
    given = leaves(b=0)
    y = ours(given, [])
    assert y.shape == (T, 0, D + S)
    assert [g.shape for g in grads(y, given)] == [(0, S, D), (0, D)]


def test_mixed_precision() -> None:
    given = leaves(dtype=torch.float32)
    want = reference(given, [5, 1, 3])
    with torch.autocast("cpu", torch.bfloat16):
        handle = ops.prepare_memory(given["memory"], torch.tensor([5, 1, 3]))
        context, weights = ops.attend_step(handle, given["query"])
    assert (context.dtype, weights.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(
        torch.cat([context, weights], 1).float(), want[0], rtol=5e-2, atol=5e-2
    )


def test_double_backward(any_engine: str) -> None:
    given = leaves(2, 3, 2)

    def run(memory: Tensor, query: Tensor) -> Tensor:
        return ours({"memory": memory, "query": query}, [3, 1], 2)

    if any_engine == "naive":
        assert torch.autograd.gradgradcheck(run, tuple(given.values()), fast_mode=True)
        return
    with pytest.raises(RuntimeError, match=f"not supported by the {any_engine} engine"):
        grads(run(**given), given, create_graph=True)


def test_lengths_beyond_the_memory_count_as_all_of_it(any_engine: str) -> None:
    """As a mask of steps below the length says, which OpenNMT-py's attention takes."""
    memory = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    query, results = torch.randn(4, 5, dtype=torch.float64), []
    for lengths in ([7, 3, 2, 4], [3, 3, 2, 3]):
        context, weights = ops.attend_step(ops.prepare_memory(memory, torch.tensor(lengths)), query)
        assert weights.shape == (4, 3)
        results.append([context, weights, *torch.autograd.grad(context.sum(), memory)])
    scores = (memory @ query[:, :, None])[..., 0]
    past = torch.arange(3) >= torch.tensor([7, 3, 2, 4])[:, None]
    want = scores.masked_fill(past, -torch.inf).softmax(1)
    torch.testing.assert_close(results[0][1], want)
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("memory", "lengths", "text"),
    [
        (torch.ones(2, 3), None, "memory must be [B, S, D] with S >= 1, got [2, 3]"),
        (torch.ones(2, 0, 3), None, "memory must be [B, S, D] with S >= 1, got [2, 0, 3]"),
        (torch.ones(2, 3, 4, dtype=torch.int64), None,
         "memory must be floating point, got torch.int64"),
        (torch.ones(2, 3, 4), torch.tensor([1]),
         "lengths must be int64 [2], one for each memory; got torch.int64 [1]"),
        (torch.ones(2, 3, 4), torch.tensor([1.0, 2.0]),
         "lengths must be int64 [2], one for each memory; got torch.float32 [2]"),
        (torch.ones(2, 3, 4), torch.tensor([0, 4]), "lengths must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_wrong_memories(memory: Tensor, lengths: Tensor | None, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        ops.prepare_memory(memory, lengths)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (torch.ones(3, 4), "query must be [n, 4] with n <= 2 for a memory [2, S, 4], got [3, 4]"),
        (torch.ones(2, 4, dtype=torch.float64),
         "all inputs need one dtype: query torch.float64, memory torch.float32"),
    ],
)  # fmt: skip
def test_wrong_queries(query: Tensor, text: str) -> None:
    handle = ops.prepare_memory(torch.ones(2, 3, 4))
    with pytest.raises(ValueError) as error:
        ops.attend_step(handle, query)
    assert str(error.value) == text
