"""Random layers for the suite ``sweep``: what users may have, and nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.benchmark import gru, lstm
from opennmt_sd.benchmark.recurrent import Case, Cell
from opennmt_sd.nn import MaskedLinear, StructuredLSTMCell

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9)
PLACES = ("NR", "RH", "NR+RH")
# Multiplications of a forward pass. What has more is drawn again: a step would take seconds.
MOST = 2_000_000_000


class Steps(nn.Module):
    """A cell in a loop, as a decoder has it: ``nn.Dropout`` on each input and each state, or
    whatever the cell does itself."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell
        self.of_x, self.of_h = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Give all h ``[T, B, H]`` of x ``[T, B, D]``."""
        h = c = x.new_zeros(x.shape[1], self.cell.hidden_size)
        of_x, of_h = (drop if drop.p else nn.Identity() for drop in (self.of_x, self.of_h))
        outputs = []
        for step in x.unbind():
            h, c = self.cell(of_x(step), (of_h(h), c))
            outputs.append(h)
        return torch.stack(outputs)


def _steps(cell: Any, inputs: int, units: int, **dropouts: Any) -> Steps:
    return Steps(cell(inputs, units, **dropouts))


class Linear(nn.Linear):
    """``nn.Linear``, which takes packed rows as ours does."""

    def forward(self, input: Tensor | PackedSequence) -> Any:
        if isinstance(input, PackedSequence):
            return input._replace(data=super().forward(input.data))
        return super().forward(input)


def _masked_linear(
    inputs: int, units: int, *, input_dropout: Any, recurrent_dropout: None
) -> MaskedLinear:
    assert recurrent_dropout is None  # there is no recurrent product
    return MaskedLinear(inputs, units, dropout=input_dropout)


STEP = Cell("cell", partial(_steps, nn.LSTMCell), partial(_steps, StructuredLSTMCell))
LINEAR = Cell("linear", Linear, _masked_linear, recurs=False)
CELLS = (lstm.CELL, lstm.CELL, lstm.CELL, gru.CELL, STEP, STEP, LINEAR, LINEAR)


@dataclass(frozen=True)
class Shape:
    """A layer with what it is fed, and the threads that it has."""

    case: Case
    threads: int

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def multiplications(self) -> int:
        """Count those of a forward pass that drops nothing."""
        case, cell = self.case, self.case.cell
        directions = 2 if case.bidirectional else 1
        width = case.inputs + case.hidden if cell.recurs else case.inputs
        gates = {lstm.CELL: 4, STEP: 4, gru.CELL: 3}.get(cell, 1)
        return sum(case.batch_lengths()) * width * gates * case.hidden * directions


def draw(seed: int, count: int, threads: Sequence[int] = (1, 2)) -> list[Shape]:
    """Draw so many shapes; the same for the same seed, and the first of more are those of fewer.

    Sizes are as likely to double as to halve: T 1 to 100, B 1 to 128, D and H 8 to 2048.

    Args:
        threads: of which each has one.
    """
    random_ = random.Random(seed)
    return [_draw(random_, number, threads) for number in range(count)]


def _draw(random_: random.Random, number: int, threads: Sequence[int]) -> Shape:
    """Draw one that is not too large."""

    def size(least: int, most: int) -> int:
        return round(least * (most / least) ** random_.random())

    while True:
        cell = random_.choice(CELLS)
        T, B, D, H = size(1, 100), size(1, 128), size(8, 2048), size(8, 2048)
        place, p = random_.choice(PLACES), random_.choice(RATES)
        both, packed = random_.random() < 0.5, random_.random() < 0.5
        shortest, team = random_.randint(1, T), threads[random_.randrange(len(threads))]
        packed = packed and T > 1 and cell is not STEP
        both = both and cell.recurs and cell is not STEP
        place = place if cell.recurs else "NR"
        words = [
            f"{number} {cell.suite}",
            *(["both ways"] if both else []),
            *(["packed"] if packed else []),
            f"T {T} B {B} {D}->{H} {place}",
            f"{team} thread{'s' if team > 1 else ''}",
        ]
        case = Case(
            cell, " ".join(words), D, H, p, "RH" in place, B, (min(shortest, T), T) if packed
            else (T, T), both, input="NR" in place,
        )  # fmt: skip
        shape = Shape(case, team)
        if shape.multiplications <= MOST:
            return shape
