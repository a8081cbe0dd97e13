"""The recurrence by Triton's kernels is the naive engine's: results, and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from opennmt_sd import KeepSets
from opennmt_sd.dropout import DropoutPattern, Keep, KeepMask
from opennmt_sd.ops import naive
from opennmt_sd.ops.dense import gru, lstm
from opennmt_sd.ops.engine import GRULayer, LSTMLayer

SIZES = {"steps": (4, 3, 10, None), "two parts of the batch": (3, 17, 20, None),
         "one of each": (1, 1, 1, None), "packed": (5, 4, 9, [4, 3, 3, 1, 1])}  # fmt: skip
KEEPS: dict[str, Any] = {
    "nothing dropped": None,
    "III": DropoutPattern(0.5),
    "III exact": DropoutPattern(0.3, count="exact"),
    "IV": DropoutPattern(0.5, time="fixed"),
    "I": DropoutPattern(0.5, "random"),
    "nearly all": DropoutPattern(0.999),
    "all": "all",
}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


def operands(kind: str, T: int, B: int, H: int, sizes: list[int] | None) -> dict[str, Tensor]:
    """One layer's, whose input is of width H too, and a cotangent of each result."""
    g, gates = torch.Generator().manual_seed(0), {"LSTM": 4, "GRU": 3}[kind]

    def make(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64) * scale

    rows, scale = (T, B) if sizes is None else (sum(sizes),), H**-0.5
    given = {"x": make(*rows, H), "weight_ih": make(gates * H, H, scale=scale),
             "bias": make(gates * H), "weight_hh": make(gates * H, H, scale=scale)}  # fmt: skip
    given |= {"bias_hn": make(H)} if kind == "GRU" else {}
    states = {"h": make(B, H)} | ({"c": make(B, H)} if kind == "LSTM" else {})
    return given | states | {"dy": make(*rows, H)} | {f"d{n}": make(B, H) for n in states}


def draw(rule: Any, T: int, B: int, H: int) -> Keep | None:
    if rule == "all":
        keep = DropoutPattern(0.5).draw(T, B, H)
        return KeepSets(keep.idx, torch.zeros_like(keep.count), 2.0)
    return None if rule is None else rule.draw(T, B, H, torch.Generator().manual_seed(1))


def results(
    kind: str, given: dict[str, Tensor], keep: Keep | None, sizes: list[int] | None, reverse: bool,
    dtype: torch.dtype, run: Any,
) -> dict[str, Tensor]:  # fmt: skip
    record = {"LSTM": LSTMLayer, "GRU": GRULayer}[kind]
    leaves = {
        n: t.to(dtype, copy=True).requires_grad_() for n, t in given.items() if n in record._fields
    }
    batch_sizes = None if sizes is None else torch.tensor(sizes)
    layer = record(keep=None, state_keep=keep, batch_sizes=batch_sizes, reverse=reverse, **leaves)
    outputs = run(layer)
    cotangents = [t.to(dtype) for n, t in given.items() if n in ("dy", "dh", "dc")]
    torch.autograd.backward(outputs, cotangents)
    named = dict(zip(("y", "h_n", "c_n"), (t.detach() for t in outputs)))
    return named | {f"d{n}": leaf.grad for n, leaf in leaves.items()}


def by_kernels(kind: str) -> Any:
    from opennmt_sd.ops.triton.recurrence import recurrence

    by = {"LSTM": lstm.layer_by, "GRU": gru.layer_by}[kind]
    return lambda layer: by(recurrence, layer)


def check(kind: str, size: str, rule: str, reverse: bool, dtype: torch.dtype) -> None:
    T, B, H, sizes = SIZES[size]
    given, keep = operands(kind, T, B, H, sizes), draw(KEEPS[rule], T, B, H)
    reference = {"LSTM": naive.lstm_layer, "GRU": naive.gru_layer}[kind]
    want = results(kind, given, keep, sizes, reverse, torch.float64, reference)
    got = results(kind, given, keep, sizes, reverse, dtype, by_kernels(kind))
    assert got.keys() == want.keys()
    for name, expected in want.items():
        error = (got[name].double() - expected).norm() / expected.norm().clamp_min(1e-9)
        assert error <= TOLERANCE[dtype] or not expected.norm(), f"{name}: {error:.1e}"
        assert bool(expected.norm()) or not got[name].norm(), name


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("rule", KEEPS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_float32(kernels, kind: str, size: str, rule: str, reverse: bool) -> None:
    check(kind, size, rule, reverse, torch.float32)


@pytest.mark.parametrize("rule", ["nothing dropped", "III", "I"])
@pytest.mark.parametrize("size", ["steps", "packed"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_float16(kernels, kind: str, size: str, rule: str) -> None:
    check(kind, size, rule, False, torch.float16)


@pytest.mark.parametrize("rule", ["III", "I"])
def test_nan_in_what_is_dropped(kernels, rule: str) -> None:
    """A dropped unit is not multiplied: whatever it held does not come back."""
    T, B, H, _ = SIZES["steps"]
    given, keep = operands("LSTM", T, B, H, None), draw(KEEPS[rule], T, B, H)
    assert keep is not None
    given["h"][~keep.mask()[0].expand(B, H)] = torch.nan
    found = results("LSTM", given, keep, None, False, torch.float32, by_kernels("LSTM"))
    assert all(t.isfinite().all() for t in found.values())


@pytest.mark.parametrize("same", [True, False], ids=["shared", "by sample"])
def test_a_mask_is_as_good_as_sets(kernels, same: bool) -> None:
    T, B, H, _ = SIZES["steps"]
    given, keep = operands("GRU", T, B, H, None), draw(KEEPS["III"], T, B, H)
    assert keep is not None
    mask = keep.mask().expand(-1, B, -1)
    masked = KeepMask(mask if same else mask.contiguous(), keep.scale)
    got, want = (
        results("GRU", given, k, None, False, torch.float32, by_kernels("GRU"))
        for k in (masked, keep)
    )
    for name, expected in want.items():
        torch.testing.assert_close(got[name], expected)


def test_packed_rows_of_two_parts_of_the_batch(kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the order of time, one of each part alive at last, units not in whole programs."""
    from opennmt_sd.ops.triton import tiling

    monkeypatch.setattr(tiling, "SIZES", [(16, 8)])
    monkeypatch.setitem(SIZES, "both", (3, 18, 11, [18, 17, 2]))
    for kind in ("LSTM", "GRU"):
        for rule in ("III", "I"):
            check(kind, "both", rule, True, torch.float32)


def test_operands_of_any_strides(kernels) -> None:
    T, B, H, _ = SIZES["steps"]
    given = operands("LSTM", T, B, H, None)
    want = results("LSTM", given, None, None, False, torch.float32, by_kernels("LSTM"))
    turned = {n: t.transpose(0, -1).contiguous().transpose(0, -1) for n, t in given.items()}
    assert not turned["weight_hh"].is_contiguous()
    got = results("LSTM", turned, None, None, False, torch.float32, by_kernels("LSTM"))
    for name, expected in want.items():
        torch.testing.assert_close(got[name], expected)
