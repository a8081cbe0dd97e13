"""What a kernel would stray on is refused before it runs, whoever calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd.ops.cpu import kernels

pytestmark = pytest.mark.usefixtures("native")

# 4 steps of 3 rows, or packed; 8 units; 5 outputs
T, B, D, N = 4, 3, 8, 5
PADDED, PACKED = [B] * T, [3, 2, 2, 1]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def sets(*units: int, S: int = T) -> tuple[Tensor, Tensor]:
    """idx and count of S sets that keep these units; by default all even ones."""
    units = units or (0, 2, 4, 6)
    idx = torch.full((S, D), 99, dtype=torch.int32)
    idx[:, : len(units)] = torch.tensor(units)
    return idx, torch.full((S,), len(units), dtype=torch.int32)


def calls(idx: Any, count: Any, sizes: list[int], dtype: torch.dtype = torch.float32):
    """Each kernel that takes sets of a sequence, by name; D and H are one."""
    R = sum(sizes)

    def z(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    state, gates, rows, u = z(B, D), z(R, 4 * D), z(R, D), z(4 * D, D)
    of_x, of_h = kernels.Sets(idx, count, 2.0), kernels.Sets()
    more = of_x, sizes, False
    where = kernels.Rows(len(sizes), torch.tensor(sizes))

    def layer(*of_both: kernels.Sets) -> kernels.Layer:
        return kernels.Layer(rows, u, None, u, state, state, *of_both, where, False)

    def layer_bp(*of_both: kernels.Sets) -> tuple[Tensor, ...]:
        given = rows, state, state, layer(*of_both), rows, gates, rows, kernels.Needs(*[True] * 4)
        return kernels.layer_bp(kernels.LayerBP(*given))

    def gru(*of_both: kernels.Sets) -> kernels.gru.Layer:
        return kernels.gru.Layer(rows, z(3 * D, D), None, z(3 * D, D), None, state, *of_both, where,
                                 False)  # fmt: skip

    def gru_bp(*of_both: kernels.Sets) -> tuple[Tensor, ...]:
        given = rows, state, gru(*of_both), rows, gates, kernels.gru.Needs(*[True] * 5)
        return kernels.gru.layer_bp(kernels.gru.LayerBP(*given))

    return {
        "linear_fp": lambda: kernels.linear_fp(rows, z(N, D), None, of_x, sizes),
        "linear_bp": lambda: kernels.linear_bp(z(R, N), z(N, D), of_x, sizes),
        "linear_wg": lambda: kernels.linear_wg(rows, z(R, N), of_x, sizes),
        "steps_wg": lambda: kernels.steps_wg(list(rows.split(sizes)), list(z(R, N).split(sizes)),
                                             of_x),
        "lstm_fp": lambda: kernels.lstm_fp(gates, u, state, state, *more),
        "lstm_bp": lambda: kernels.lstm_bp(rows, state, state, u, state, gates, rows, *more),
        "lstm_wg": lambda: kernels.lstm_wg(rows, state, gates, *more),
        "layer_fp": lambda: kernels.layer_fp(layer(of_x, of_h)),
        "layer_fp state": lambda: kernels.layer_fp(layer(of_h, of_x)),
        "layer_bp": lambda: layer_bp(of_x, of_h),
        "layer_bp state": lambda: layer_bp(of_h, of_x),
        "layer_fp GRU": lambda: kernels.gru.layer_fp(gru(of_x, of_h)),
        "layer_fp GRU state": lambda: kernels.gru.layer_fp(gru(of_h, of_x)),
        "layer_bp GRU": lambda: gru_bp(of_x, of_h),
        "layer_bp GRU state": lambda: gru_bp(of_h, of_x),
    }  # fmt: skip


KERNELS = list(calls(None, None, PADDED))
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
RECURRENT = [name for name in KERNELS if name.startswith("l") and not name.startswith("linear")]


@every_kernel
@pytest.mark.parametrize("sizes", [PADDED, PACKED], ids=["padded", "packed"])
def test_what_is_right_runs(kernel: str, sizes: list[int]) -> None:
    """So that the refusals below refuse for their own reason."""
    calls(*sets(), sizes)[kernel]()
    calls(*sets(*range(D)), sizes)[kernel]()
    if kernel != "steps_wg":
        calls(*sets(S=1), sizes)[kernel]()


RANGE = "a kept unit of step 2 is out of range: a width of 8 has units 0 to 7"
ORDER = "the kept units of step 2 must be ascending, without repeats"
SPOILT = {
    "below": (0, -1, IndexError, RANGE),
    "far below": (1, -(2**31), IndexError, RANGE),
    "above": (3, 8, IndexError, RANGE),
    "far above": (3, 2**31 - 1, IndexError, RANGE),
    "above, within": (1, 8, IndexError, RANGE),
    "descending": (1, 7, ValueError, ORDER),
    "twice": (1, 0, ValueError, ORDER),
}


@every_kernel
@pytest.mark.parametrize(("place", "unit", "error", "text"), SPOILT.values(), ids=SPOILT.keys())
def test_units_that_are_no_set(kernel: str, place: int, unit: int, error, text: str) -> None:
    idx, count = sets()
    idx[2, place] = unit
    with pytest.raises(error) as caught:
        calls(idx, count, PADDED)[kernel]()
    assert str(caught.value) == text


@every_kernel
@pytest.mark.parametrize("n", [-1, 9, 2**31 - 1, -(2**31)])
def test_a_count_that_is_none(kernel: str, n: int) -> None:
    idx, count = sets()
    count[3] = n
    with pytest.raises(IndexError) as caught:
        calls(idx, count, PADDED)[kernel]()
    assert str(caught.value) == f"keep count {n} is outside [0, 8], the width"


def cut(x: Tensor) -> Tensor:
    return x[:, :-1].contiguous()


SETS = {
    "too few sets": (lambda i, c: (i[:3], c[:3]), "3 keep sets do not fit 4 steps"),
    "too few counts": (lambda i, c: (i, c[:3]), "a CPU kernel needs torch.int32 [4], "
                                                "got torch.int32 [3] on cpu"),
    "no counts": (lambda i, c: (i, None), "keep sets need both idx and count, or neither"),
    "another width": (lambda i, c: (cut(i), c), "a CPU kernel needs torch.int32 [4, 8], "
                                                "got torch.int32 [4, 7] on cpu"),
    "long": (lambda i, c: (i.long(), c), "a CPU kernel needs torch.int32 [4, 8], "
                                         "got torch.int64 [4, 8] on cpu"),
    "elsewhere": (lambda i, c: (i.to("meta"), c), "a CPU kernel needs torch.int32 [4, 8], "
                                                  "got torch.int32 [4, 8] on meta"),
}  # fmt: skip


@every_kernel
@pytest.mark.parametrize(("spoil", "text"), SETS.values(), ids=SETS.keys())
def test_sets_that_do_not_fit(kernel: str, spoil: Callable, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        calls(*spoil(*sets()), PADDED)[kernel]()
    assert str(caught.value).startswith(text)


def test_one_set_is_not_one_for_every_step_of_steps() -> None:
    with pytest.raises(ValueError) as caught:
        calls(*sets(S=1), PADDED)["steps_wg"]()
    assert str(caught.value) == "1 keep sets do not fit 4 steps"


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.complex64])
def test_another_dtype(kernel: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError) as caught:
        calls(*sets(), PADDED, dtype)[kernel]()
    assert str(caught.value) == (
        f"the CPU kernels are for torch.float32 and torch.float64, got {dtype}"
    )


@pytest.mark.parametrize("kernel", RECURRENT)
@pytest.mark.parametrize(
    ("sizes", "text"),
    [([2, 2, 2, 2], "the first step has 2 rows, the first state 3"),
     ([4, 4, 4, 4], "the first step has 4 rows, the first state 3"),
     ([3, 1, 2, 1], "the rows of each step must not grow, nor be negative"),
     ([3, 3, 3, -1], "the rows of each step must not grow, nor be negative")],
    ids=str,
)  # fmt: skip
def test_rows_that_are_no_batch(kernel: str, sizes: list[int], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        calls(*sets(), sizes)[kernel]()
    assert str(caught.value) == text


def test_rows_of_a_linear_layer_may_grow_but_not_be_negative() -> None:
    grown = calls(*sets(), [1, 3, 0, 2])
    for kernel in ("linear_fp", "linear_bp", "linear_wg"):
        grown[kernel]()
        with pytest.raises(ValueError) as caught:
            calls(*sets(), [3, -1, 3, 1])[kernel]()
        assert str(caught.value) == "the rows of each step must not be negative"


MASKS = {
    "of other steps": (zeros(3, B, D).bool(), "a mask of 3 steps does not fit 4 steps: 1 or 4"),
    "of another batch": (zeros(T, 2, D).bool(), "a CPU kernel needs torch.bool [4, 3, 8], got"),
    "of another width": (zeros(T, B, 7).bool(), "a CPU kernel needs torch.bool [4, 3, 8], got"),
    "of numbers": (zeros(T, B, D), "a CPU kernel needs torch.bool [4, 3, 8], got torch.float32"),
}


@pytest.mark.parametrize(("mask", "text"), MASKS.values(), ids=MASKS.keys())
def test_masks_that_do_not_fit(mask: Tensor, text: str) -> None:
    state, gates, rows, u = zeros(B, D), zeros(T * B, 4 * D), zeros(T * B, D), zeros(4 * D, D)
    of_h = kernels.Sets(mask=mask)
    more = of_h, PADDED, False
    for run in (
        lambda: kernels.lstm_fp(gates, u, state, state, *more),
        lambda: kernels.lstm_bp(rows, state, state, u, state, gates, rows, *more),
        lambda: kernels.lstm_wg(rows, state, gates, *more),
        lambda: kernels.layer_fp(
            kernels.Layer(
                rows, u, None, u, state, state, kernels.Sets(), of_h, kernels.Rows(T, None), False
            )
        ),
        lambda: kernels.gru.layer_fp(gru_layer(h_sets=of_h)),
    ):
        with pytest.raises(ValueError) as caught:
            run()
        assert str(caught.value).startswith(text)


def gru_layer(**other: Any) -> kernels.gru.Layer:
    all_kept, where = kernels.Sets(), kernels.Rows(T, None)
    return kernels.gru.Layer(
        zeros(T * B, D), zeros(3 * D, D), None, zeros(3 * D, D), None, zeros(B, D), all_kept,
        all_kept, where, False,
    )._replace(**other)  # fmt: skip


def test_ops_refuse_as_kernels_do() -> None:
    """The registered ops are the kernels: torch adds no way around the checks."""
    idx, count = sets()
    count[0] = 9
    rows, weight = zeros(T * B, D), zeros(N, D)
    with pytest.raises(IndexError, match=r"^keep count 9 is outside \[0, 8\], the width$"):
        torch.ops.opennmt_sd.linear_fp(rows, weight, None, idx, count, 1.0, None, T, None, False)


def test_nothing_has_no_width() -> None:
    """Products of nothing, in each phase: 0 rows, inputs or outputs."""
    kept = kernels.Sets()
    for rows, width, outputs in ((0, D, N), (4, 0, N), (4, D, 0), (0, 0, 0)):
        x, w, dy = zeros(rows, width), zeros(outputs, width), zeros(rows, outputs)
        bias = torch.ones(outputs)
        y = kernels.linear_fp(x, w, bias, kept, [rows])
        assert torch.equal(y, torch.ones(rows, outputs))
        assert torch.equal(kernels.linear_bp(dy, w, kept, [rows]), zeros(rows, width))
        assert torch.equal(kernels.linear_wg(x, dy, kept, [rows]), zeros(outputs, width))
