"""Cycles on a systolic array: SCALE-Sim's figures, and what follows from them."""

from __future__ import annotations

import pytest

from opennmt_sd.benchmark import cycles_plot
from opennmt_sd.benchmark.cycles import ARRAYS, CASES, DATAFLOWS, Case, Row, cycles, rows

# M, K, N
GEMMS = [
    (10, 130, 800), (10, 65, 800), (10, 800, 130), (10, 800, 65), (800, 10, 65), (20, 200, 400),
    (64, 35, 100),
]  # fmt: skip
# Of SCALE-Sim 3.0.0, as scripts/record_scale_sim.py printed them: it counts from zero.
SCALE_SIM = {
    (32, "os"): [4799, 3174, 4309, 2585, 5399, 3405, 775],
    (32, "ws"): [12999, 7799, 12999, 7799, 2681, 10373, 1263],
    (32, "is"): [4469, 2681, 5599, 3974, 3974, 3457, 775],
    (128, "os"): [2687, 2232, 2107, 1053, 1847, 1815, 288],
    (128, "ws"): [5487, 2743, 5487, 2743, 1181, 3215, 445],
}


@pytest.mark.parametrize(("size", "dataflow"), SCALE_SIM)
def test_scale_sim_counts_the_same(size: int, dataflow: str) -> None:
    assert [cycles(*gemm, size, dataflow) - 1 for gemm in GEMMS] == SCALE_SIM[size, dataflow]


def test_one_by_hand() -> None:
    """Three outputs side by side, one below: the last one waits for two more and ends with K."""
    assert cycles(1, 5, 3, 4, "os") == 4 + 4 + 5 - 2


def test_an_unknown_dataflow() -> None:
    with pytest.raises(ValueError) as error:
        cycles(1, 1, 1, 32, "rs")
    assert str(error.value) == "dataflow 'rs' is unknown: use one of os, ws, is"


CASE = Case("layer", D=64, H=32, p=0.5, T=10, B=4)


def row(phase: str, size: int = 32, dataflow: str = "os") -> Row:
    (found,) = [
        row for row in rows([CASE])
        if (row.phase, row.size, row.dataflow) == (phase, size, dataflow)
    ]  # fmt: skip
    return found


def test_a_row() -> None:
    """FP: [4, 64] x [64, 128] a step, [40, 64] x [64, 128] at once; half of 64 is kept."""
    found = row("FP")
    assert found.steps == 10 * 1 * 4 * (62 + 64)
    assert found.batched == 2 * 4 * (62 + 64)
    assert found.case3 == 10 * 1 * 4 * (62 + 32)
    assert found.case4 == 2 * 4 * (62 + 32)
    assert found.gain == found.batched / found.case3
    assert found.gain4 == found.batched / found.case4


def test_a_recurrence_cannot_be_one_product_but_its_weight_gradient_is() -> None:
    for phase in ("REC-FP", "REC-BP"):
        found = row(phase)
        assert found.batched is found.case4 is None
        assert found.best_dense == found.steps
    assert row("REC-WG").batched == 4 * 1 * (62 + 40)  # [128, 40] x [40, 32]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_page_says(case: Case) -> None:
    found = list(rows([case]))
    for size in ARRAYS:
        for dataflow in DATAFLOWS:
            chosen = [row for row in found if (row.size, row.dataflow) == (size, dataflow)]
            gain = cycles_plot.gain
            assert gain(chosen, cycles_plot.RECURRENCE, "case3") >= 1
            assert gain(chosen, cycles_plot.INPUTS, "best4") >= 1
            if size > 32:  # an array larger than the rows of a step
                assert gain(chosen, cycles_plot.INPUTS, "case3") < 1
