"""Suite ``lstm``: one ``StructuredLSTM`` layer against ``nn.LSTM`` behind ``nn.Dropout``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from opennmt_sd.benchmark import recurrent
from opennmt_sd.benchmark.row import Row
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.nn import StructuredLSTM

CELL = recurrent.Cell("lstm", nn.LSTM, StructuredLSTM)
CASES = recurrent.cases(CELL)
GPU_CASES = recurrent.gpu_cases(CELL)


def workload(name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
    """Give a training step of a case: ``"torch"`` or ``"ours"``."""
    return recurrent.workload([*CASES, *GPU_CASES], name, variant, target)


def run(
    repeats: int = 15, cases: Sequence[recurrent.Case] = CASES, target: Target = CPU
) -> Iterator[Row]:
    """Row after row: see :func:`opennmt_sd.benchmark.recurrent.run`."""
    return recurrent.run(repeats, cases, target)
