"""Suite ``noise``: how much a draw adds to the noise of the gradient, at a fixed point.

Nothing is timed. A language model and a translator (where OpenNMT-py is installed) learn from the
samples that ship, with ordinary dropout. Then the weights stay, and the gradient of one batch is
computed again and again, with new draws:

    noise = E |g - E g|^2 / |E g|^2

over all weights, summed over a few batches above and below the line. All draws are run dense: see
:mod:`opennmt_sd.benchmark.draws`. One seed gives the same figures again.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Protocol

import torch
from torch import Tensor

from opennmt_sd.benchmark.draws import DRAWS, ORDINARY, Draw, emulated

BATCHES, REPEATS = 4, 25  # draws of each batch: 100 together
UPDATES = 300
TITLE = "variance of the gradient over its squared mean; price: over Case I's"


class Trained(Protocol):
    """A model that has learned.

    Attributes:
        batches: how many it has.
    """

    batches: int

    def gradient(self, batch: int) -> Tensor:
        """Return the gradient of a batch, ``[N]``, with a draw of its own."""
        raise NotImplementedError


@dataclass(frozen=True)
class Case:
    """A model, and what it drops.

    Args:
        name: of the row.
        learn: trains it, at rate p with B rows, of a width, for so many updates.
        p: rate of all places.
        B: rows of a batch.
        width: of the model.
        decodes: whether it has a decoder, whose output may have a rule of its own.
    """

    name: str
    learn: Callable[[float, int, int, int], Trained]
    p: float
    B: int
    width: int = 128
    decodes: bool = False


@dataclass(frozen=True)
class Row:
    """The noise of one draw.

    Args:
        case, draw: of what.
        p, B: rate, rows.
        noise: variance over squared mean.
        price: what is added to Case I's noise, as a share of it.
        error: of the price, its standard error over the batches; NaN of a single batch.
    """

    case: str
    draw: str
    p: float
    B: int
    noise: float
    price: float
    error: float

    def as_json(self) -> dict[str, Any]:
        found = {name: value for name, value in vars(self).items() if name != "error"}
        return found if math.isnan(self.error) else {**found, "error": self.error}


def moments(gradients: Iterable[Tensor]) -> tuple[float, float]:
    """Return the variance and the squared mean of vectors, without bias.

    Args:
        gradients: two or more, ``[N]`` each.
    """
    n, squares, total = 0, 0.0, torch.zeros((), dtype=torch.float64)
    for gradient in gradients:
        g = gradient.double()
        n, squares, total = n + 1, squares + float(g @ g), total + g
    if n < 2:
        raise ValueError(f"a variance needs two draws or more, got {n}")
    of_sum = float(total @ total)
    variance = (squares - of_sum / n) / (n - 1)
    return variance, of_sum / n**2 - variance / n


def noise(trained: Trained, draw: Draw, repeats: int = REPEATS) -> list[tuple[float, float]]:
    """Return the variance and the squared mean of each batch's gradient."""
    found = []
    with emulated(draw):
        for batch in range(trained.batches):
            torch.manual_seed(batch)
            found.append(moments(trained.gradient(batch) for _ in range(repeats)))
    return found


def rows(
    cases: Iterable[Case] | None = None,
    *,
    draws: Sequence[Draw] = DRAWS,
    updates: int = UPDATES,
    repeats: int = REPEATS,
) -> Iterator[Row]:
    """Train each case and give a row a draw."""
    for case in CASES if cases is None else cases:
        torch.manual_seed(1)
        trained = case.learn(case.p, case.B, case.width, updates)
        ordinary = noise(trained, ORDINARY, repeats)
        for draw in draws:
            if (draw.output or draw.staggered) and not case.decodes:
                continue
            found = ordinary if draw == ORDINARY else noise(trained, draw, repeats)
            share = [a / c for (a, _), (c, _) in zip(found, ordinary)]  # of the variance, a batch
            spread = [s - 1 for s in share]
            yield Row(
                case=case.name, draw=draw.name, p=case.p, B=case.B, noise=_ratio(found),
                price=_ratio(found) / _ratio(ordinary) - 1,
                error=stdev(spread) / math.sqrt(len(spread)) if len(spread) > 1 else math.nan,
            )  # fmt: skip


def _ratio(found: Sequence[tuple[float, float]]) -> float:
    return mean(v for v, _ in found) / mean(m for _, m in found)


def table(found: Sequence[Row]) -> list[dict[str, str]]:
    """Return the cells of each line."""
    return [
        {"case": row.case, "p": f"{row.p:g}", "B": f"{row.B}", "draw": row.draw,
         "noise": f"{row.noise:.3f}", "price": f"{row.price:+.1%}",
         "+-": "" if math.isnan(row.error) else f"{row.error:.1%}"}
        for row in found
    ]  # fmt: skip


def language_model(p: float, B: int, width: int, updates: int) -> Trained:
    """Train a language model on Shakespeare."""
    from opennmt_sd.benchmark.noise_lm import TrainedLanguageModel

    return TrainedLanguageModel(p, B, width, updates, BATCHES)


def translator(p: float, B: int, width: int, updates: int) -> Trained:
    """Train a translator on Tatoeba, German to English."""
    from opennmt_sd.benchmark.noise_translator import TrainedTranslator

    return TrainedTranslator(p, B, width, updates, BATCHES)


RATES = ((0.3, 64), (0.5, 20), (0.65, 20))
MODELS = [("LM", language_model)]
if importlib.util.find_spec("onmt"):
    MODELS.append(("translator", translator))
CASES = [
    Case(f"{name} {p:g}", learn, p, B, decodes=learn is translator)
    for name, learn in MODELS
    for p, B in RATES
]
