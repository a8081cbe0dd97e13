"""Each suite on small cases: its rows, its gate, its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from opennmt_sd.benchmark import growth, gru, lstm, memory, ops, recurrent
from opennmt_sd.benchmark.row import RedGateError, Row
from opennmt_sd.ops.autocast import autocast_dtype
from opennmt_sd.ops.cpu import kernels

NEEDED = {"suite", "case", "phase", "p", "torch_ms", "dense_ms", "ours_ms", "speedup_vs_torch",
          "speedup_vs_dense", "ideal", "max_rel_err"}  # fmt: skip


def check(rows: list[Row]) -> None:
    for row in rows:
        assert row.as_json().keys() >= NEEDED
        assert min(row.torch_ms, row.dense_ms, row.ours_ms) > 0
        assert 0 <= row.max_rel_err < 1e-4


def test_ops() -> None:
    rows = list(ops.run(1, [ops.Linear(40, 70, 0.5), ops.Recurrent(33, 0.65)]))
    check(rows)
    assert [(row.case, row.phase) for row in rows] == [
        *[("40->70 NR", phase) for phase in ("FP", "BP", "WG")],
        *[("33 RH", phase) for phase in ("REC-FP", "REC-BP", "REC-WG")],
    ]
    assert [row.ideal for row in rows] == [2.0] * 3 + [pytest.approx(1 / 0.35)] * 3


SMALL = {
    "plain": ("small", 24, 16, 0.5, True, 3, (4, 4)),
    "packed, both directions": ("small", 24, 16, 0.3, False, 3, (2, 5), True),
}


@pytest.mark.parametrize("suite", [lstm, gru], ids=["lstm", "gru"])
@pytest.mark.parametrize("name", SMALL)
def test_a_recurrent_layer(name: str, suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "peak_mb", lambda *_: 5.0)
    monkeypatch.setattr(recurrent, "_lowered_ms", lambda work: 3.0)
    case = recurrent.Case(suite.CELL, *SMALL[name])
    rows = list(suite.run(1, [case]))
    check(rows)
    p = case.p
    assert {row.suite for row in rows} == {suite.CELL.suite}
    assert [(row.phase, row.p) for row in rows] == [("step", p), ("step", 0.0), ("eval", p)]
    assert rows[0].draw_ms is not None
    assert [row.torch_bf16_ms for row in rows] == [3.0, 3.0, None]
    assert rows[0].peak_mb == rows[0].torch_peak_mb == 5.0
    assert [row.ideal for row in rows[1:]] == [1.0, 1.0]


def test_torch_in_bfloat16_is_timed_where_it_can() -> None:
    seen = []

    class Work:
        def step(self) -> None:
            seen.append(autocast_dtype("cpu"))
            if len(seen) == 3:
                raise RuntimeError("could not create a primitive descriptor")

    assert recurrent._lowered_ms(Work()) is None
    assert seen == [torch.bfloat16] * 3
    ms = recurrent._lowered_ms(Work())
    assert ms is not None
    assert 0 < ms < 100
    assert set(seen) == {torch.bfloat16}


def test_the_ideal_counts_every_product() -> None:
    assert recurrent.Case(lstm.CELL, *SMALL["plain"]).ideal == 2.0
    assert recurrent.Case(gru.CELL, "", 100, 100, 0.5, False).ideal == pytest.approx(4 / 3)


def test_a_gru_has_the_cases_of_an_lstm() -> None:
    assert [case.name.replace(" GRU", "") for case in gru.CASES] == [c.name for c in lstm.CASES]
    assert all("GRU" in case.name for case in gru.CASES)


def test_growth() -> None:
    rows = list(growth.run(1, [growth.Width(20)]))
    check(rows)
    assert {row.p for row in rows} == set(growth.RATES)
    assert {row.case for row in rows} == {"20"}


@pytest.mark.parametrize("kernel", ["linear_fp", "linear_bp", "linear_wg", "lstm_fp", "lstm_wg"])
def test_a_wrong_kernel_has_no_speed(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(kernels, kernel)

    def wrong(*args: Any) -> Any:
        result = right(*args)
        (result[0] if isinstance(result, tuple) else result).view(-1)[3] += 0.1
        return result

    monkeypatch.setattr(kernels, kernel, wrong)
    cases: list[ops.Case] = [ops.Linear(40, 70, 0.5), ops.Recurrent(33, 0.5)]
    with pytest.raises(RedGateError, match="no speed is reported"):
        list(ops.run(1, cases))


@pytest.mark.slow
def test_memory_counts_what_a_workload_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (memory.peak_mb("lstm", name, "ours") for name in ("200x2 NR+RH", "650 NR"))
    assert 5 < small < large < 400  # the wide layer's parameters and gradients alone are 27 MB
    assert memory.peak_mb("gru", "650 GRU NR", "ours") < large, "three gates, not four"


@pytest.mark.slow
def test_memory_of_an_unknown_case_says_why() -> None:
    with pytest.raises(RuntimeError, match="memory of lstm nothing"):
        memory.peak_mb("lstm", "nothing", "ours")
