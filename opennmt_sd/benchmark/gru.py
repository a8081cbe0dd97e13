"""Suite ``gru``: one ``StructuredGRU`` layer against ``nn.GRU`` behind ``nn.Dropout``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from opennmt_sd.benchmark import recurrent
from opennmt_sd.benchmark.row import Row
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.nn import StructuredGRU

CELL = recurrent.Cell("gru", nn.GRU, StructuredGRU)
CASES = recurrent.cases(CELL, " GRU")
GPU_CASES = recurrent.gpu_cases(CELL, " GRU")


def workload(name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
    """Give a training step of a case: ``"torch"`` or ``"ours"``."""
    return recurrent.workload([*CASES, *GPU_CASES], name, variant, target)


def run(
    repeats: int = 15, cases: Sequence[recurrent.Case] = CASES, target: Target = CPU
) -> Iterator[Row]:
    """Row after row: see :func:`opennmt_sd.benchmark.recurrent.run`."""
    return recurrent.run(repeats, cases, target)


def warm_up() -> None:
    """Make torch set up what its GRU needs once in a process."""
    nn.GRU(8, 8)(torch.randn(2, 2, 8))[0].sum().backward()
