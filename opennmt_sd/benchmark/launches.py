"""Suite ``launches``: how many ops a training step would launch on a GPU, ours and torch's own.

Nothing is timed, and no GPU is needed: see :mod:`opennmt_sd.benchmark.launching`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.launching import Launches, counted
from opennmt_sd.dropout import DropoutPattern

Step = Callable[[], Any]
META = torch.device("meta")


TITLE = "launches of a training step, and how often the host waits for the device"


@dataclass(frozen=True)
class Case:
    """A training step.

    Args:
        name: of the row.
        limit: of ours over torch's, which the tests hold; None where torch has no such step.
        count: gives torch's and ours.
    """

    name: str
    limit: float | None
    count: Callable[[], tuple[Launches | None, Launches]]


@dataclass(frozen=True)
class Count:
    """What a step launches.

    Args:
        case: whose.
        stock, ours: launches.
        stock_waits, waits: how often the host waits for the device.
    """

    case: Case
    stock: int | None
    ours: int
    stock_waits: int | None
    waits: int

    @property
    def ratio(self) -> float | None:
        return None if self.stock is None else self.ours / self.stock

    def as_json(self) -> dict[str, Any]:
        found = {"case": self.case.name, "torch": self.stock, "ours": self.ours,
                 "torch_waits": self.stock_waits, "waits": self.waits}  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}


def launched(step: Step, **given: Any) -> Launches:
    """Count a step in full swing: the second one, since the first sets up state."""
    with counted(**given):
        step()
    with counted(**given) as launches:
        step()
    return launches


def rows(cases: Iterable[Case] | None = None) -> Iterator[Count]:
    """Count each case."""
    for case in CASES if cases is None else cases:
        stock, ours = case.count()
        known = (None, None) if stock is None else (stock.total, sum(stock.waits.values()))
        yield Count(case, known[0], ours.total, known[1], sum(ours.waits.values()))


def table(found: Sequence[Count]) -> list[dict[str, str]]:
    """Return the cells of each line."""
    return [
        {"case": row.case.name, "torch": _or_none(row.stock), "ours": str(row.ours),
         "ours / torch": "" if row.ratio is None else f"{row.ratio:.2f}",
         "torch waits": _or_none(row.stock_waits), "ours waits": str(row.waits)}
        for row in found
    ]  # fmt: skip


def _or_none(n: int | None) -> str:
    return "" if n is None else str(n)


# ---------------------------------------------------------------- the three tasks


def language_model() -> tuple[Launches, Launches]:
    """Zaremba's medium model, NR and FC: forward, loss, backward, clip, update."""
    from opennmt_sd.benchmark.lm import CASES, plain, structured

    case = next(case for case in CASES if case.name == "medium NR+FC")

    def step_of(model: nn.Module) -> Step:
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        words = torch.zeros(2, case.T, case.B, dtype=torch.int64)
        carried: list[Any] = [None]

        def step() -> None:
            ids, targets = (part.to(META) for part in words)
            loss, _, carried[0] = model(ids, targets, carried[0], scale=float(case.T))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), case.clip)
            optimizer.step()
            optimizer.zero_grad()

        return step

    with META:
        models = plain(case), structured(case, case.p)
    stock, ours = (launched(step_of(model)) for model in models)
    return stock, ours


def tagger() -> tuple[Launches, Launches]:
    """Ma and Hovy's tagger, NR, on sentences of the sample."""
    from opennmt_sd.benchmark import tagger_work as work
    from opennmt_sd.benchmark.tagger import CASES
    from opennmt_sd.tagger.model import Tagger
    from opennmt_sd.tagger.reference import PlainTagger

    case = next(case for case in CASES if case.name == "ma_hovy NR")

    def step_of(model: Any) -> Step:
        batch = work.Data(case, model).batches[0]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.015, momentum=0.9)

        def step() -> None:
            on_device = batch.to(META)
            (model(on_device) / batch.sentences).backward()
            nn.utils.clip_grad_norm_(model.parameters(), work.CLIP)
            optimizer.step()
            optimizer.zero_grad()

        return step

    found = []
    for kind in (PlainTagger, Tagger):
        with META:
            model = kind(case.config(case.p), work.vocabulary())
        found.append(launched(step_of(model)))
    return found[0], found[1]


def translator(*, input_feed: bool, rnn: str = "LSTM") -> tuple[Launches, Launches]:
    """Count a translator of OpenNMT-py, NR: an update as its trainer makes it."""
    from opennmt_sd.benchmark.translation import Case as Size
    from opennmt_sd.benchmark.translator import Work

    case = Size("small", 32, 100, 0.3, input_feed=input_feed, rnn=rnn, sentences=8, batches=1)

    def step_of(ours: bool) -> tuple[Step, Callable[[Tensor], Any]]:
        work = Work(case, ours=ours, p=case.p)
        _to_meta(work)
        ((batches, normalization),) = [next(work.updates)]
        lengths = batches[0]["srclen"].tolist()
        on_device = [
            {name: part.to(META) if isinstance(part, Tensor) else part
             for name, part in batch.items()}
            for batch in batches
        ]  # fmt: skip

        def step() -> None:
            work.trainer._gradient_accumulation(
                on_device, normalization, work.statistics, work.statistics
            )

        return step, lambda x: lengths[: len(x)]

    found = []
    for ours in (False, True):
        step, lengths = step_of(ours)
        found.append(launched(step, waited_for=lengths))
    return found[0], found[1]


# ---------------------------------------------------------------- single ops


def loss(T: int, B: int, D: int, V: int) -> Launches:
    """Count ``ops.projected_nll`` behind a Case III draw, forward and backward."""
    with META:
        x, weight, bias = (torch.zeros(s, requires_grad=True) for s in ((T, B, D), (V, D), (V,)))
        targets = torch.zeros(T, B, dtype=torch.int64)

    def step() -> None:
        keep = DropoutPattern(0.5).draw_mask(T, B, D)
        ops.projected_nll(x, keep, weight, bias, targets)[0].backward()

    return launched(step)


def recurrent_layer(T: int, cell: str = "lstm", B: int = 20, H: int = 650) -> Launches:
    """Count a layer with recurrent dropout, forward and backward."""
    gates = 4 if cell == "lstm" else 3
    with META:
        x, w_ih, w_hh, bias, h = (
            torch.zeros(shape, requires_grad=True)
            for shape in ((T, B, H), (gates * H, H), (gates * H, H), (gates * H,), (B, H))
        )

    def step() -> None:
        keep = DropoutPattern(0.5).draw_mask(T, B, H)
        if cell == "lstm":
            y, *_ = ops.lstm_layer(x, None, w_ih, bias, w_hh, h, h, keep)
        else:
            y, *_ = ops.gru_layer(x, None, w_ih, bias, w_hh, bias[:H], h, keep)
        y.sum().backward()

    return launched(step)


def steps_of_recurrence(cell: str = "lstm") -> float:
    """Return the launches of one more step of recurrent dropout, forward and backward."""
    return (recurrent_layer(20, cell).total - recurrent_layer(10, cell).total) / 10


def _to_meta(work: Any) -> None:
    """Put a translator on the meta device, and Adam to the new weights: stock's, as on a GPU."""
    before = list(work.model.parameters())
    work.model.to(META)
    work.trainer.train_loss.to(META)
    moved = {id(old): new for old, new in zip(before, work.model.parameters(), strict=True)}
    adam = work.optim._optimizer
    adam.__class__ = torch.optim.Adam
    for group in adam.param_groups:
        group["params"] = [moved[id(weight)] for weight in group["params"]]


CASES = [
    Case("LM medium NR+FC", 1.3, language_model),
    Case("tagger NR", 1.3, tagger),
    *(
        [
            Case("onmt NR, no input feed", 1.3, lambda: translator(input_feed=False)),
            Case("onmt NR, input feed", 1.0, lambda: translator(input_feed=True)),
        ]
        if importlib.util.find_spec("onmt")
        else []
    ),
    Case("projected_nll T35 B20 V10000", None, lambda: (None, loss(35, 20, 650, 10_000))),
    Case("projected_nll T25 B64 V32000", None, lambda: (None, loss(25, 64, 500, 32_000))),
    Case("LSTM layer RH, 10 steps", None, lambda: (None, recurrent_layer(10))),
    Case("LSTM layer RH, 20 steps", None, lambda: (None, recurrent_layer(20))),
    Case("GRU layer RH, 20 steps", None, lambda: (None, recurrent_layer(20, "gru"))),
]
