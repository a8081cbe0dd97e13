"""One recurrent layer, forward and backward, against torch's behind ``nn.Dropout``; each case also
with nothing dropped, and in evaluation. The suites ``lstm`` and ``gru`` say of which cell."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.benchmark.target import CPU, Target, forced
from opennmt_sd.dropout import DropoutPattern

TOLERANCE = 1e-4  # float32 along up to 40 dependent steps


class Cell(NamedTuple):
    """What is compared: torch's layer, and ours.

    Args:
        suite: its name.
        stock, ours: make it of inputs, units and, for both directions, ``bidirectional=True``;
            ours with ``input_dropout`` and ``recurrent_dropout``.
        recurs: whether it has a recurrent product.
    """

    suite: str
    stock: Callable[..., nn.Module]
    ours: Callable[..., nn.Module]
    recurs: bool = True


@dataclass(frozen=True)
class Case:
    """A layer and what it is fed."""

    cell: Cell
    name: str
    inputs: int
    hidden: int
    p: float
    recurrent: bool  # RH
    batch: int = 20
    lengths: tuple[int, int] = (35, 35)  # shortest and longest; packed where they differ
    bidirectional: bool = False
    fixed: bool = False  # one set for all steps: Case IV
    input: bool = True  # NR

    def pattern(self, p: float) -> DropoutPattern:
        return DropoutPattern(p, time="fixed" if self.fixed else "random")

    @property
    def packed(self) -> bool:
        return self.lengths[0] != self.lengths[1]

    @property
    def ideal(self) -> float:
        """All three phases shrink alike, so the forward pass tells."""
        kept, hidden = 1 - self.p, self.hidden if self.cell.recurs else 0
        left = self.inputs * (kept if self.input else 1) + hidden * (kept if self.recurrent else 1)
        return (self.inputs + hidden) / left

    def batch_lengths(self) -> list[int]:
        low, high = self.lengths
        return sorted(torch.linspace(low, high, self.batch).long().tolist(), reverse=True)


def cases(cell: Cell, word: str = "") -> list[Case]:
    """Return the same cases of any cell, with a word in their names."""
    return [
        Case(cell, f"650{word} NR+RH", 650, 650, 0.5, True),
        Case(cell, f"1500{word} NR+RH", 1500, 1500, 0.65, True),
        Case(cell, f"650{word} NR", 650, 650, 0.5, False),
        Case(cell, f"1500{word} NR", 1500, 1500, 0.65, False),
        # a translation encoder, and a tagger
        Case(cell, f"250x2{word} NR", 500, 250, 0.3, False, 64, (20, 26), True),
        Case(cell, f"200x2{word} NR+RH", 130, 200, 0.5, True, 10, (5, 40), True),
    ]


def gpu_cases(cell: Cell, word: str = "") -> list[Case]:
    """Return what a GPU is measured with besides: one set for all steps, and more rows."""
    return [
        Case(cell, f"650{word} NR IV", 650, 650, 0.5, False, fixed=True),
        Case(cell, f"1500{word} NR IV", 1500, 1500, 0.65, False, fixed=True),
        Case(cell, f"1024{word} B128 NR IV", 1024, 1024, 0.5, False, 128, fixed=True),
        Case(cell, f"1024{word} B128 NR+RH", 1024, 1024, 0.5, True, 128),
    ]


class Plain(nn.Module):
    """What a user would run otherwise: ``nn.Dropout`` and, say, ``nn.LSTM``, whose recurrence
    drops nothing."""

    def __init__(self, case: Case, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p if case.input else 0.0)
        self.rnn = case.cell.stock(case.inputs, case.hidden, **_directions(case))

    def forward(self, x: Tensor | PackedSequence) -> Any:
        if isinstance(x, PackedSequence):
            return self.rnn(x._replace(data=self.dropout(x.data)))
        return self.rnn(self.dropout(x))


def structured(case: Case, p: float) -> nn.Module:
    pattern = case.pattern(p)
    return case.cell.ours(
        case.inputs, case.hidden, **_directions(case),
        input_dropout=pattern if case.input else None,
        recurrent_dropout=pattern if case.recurrent else None,
    )  # fmt: skip


def _directions(case: Case) -> dict[str, bool]:
    return {"bidirectional": True} if case.bidirectional else {}


class Work:
    """A model with its input and the gradient that comes back."""

    def __init__(self, case: Case, model: nn.Module, target: Target = CPU) -> None:
        self.model = target.put(model)
        T, D = case.lengths[1], case.inputs
        generator = torch.Generator().manual_seed(1)
        self.x = target.put(torch.randn(T, case.batch, D, generator=generator)).requires_grad_()
        self.lengths = case.batch_lengths() if case.packed else None
        rows = sum(case.batch_lengths())
        width = case.hidden * (2 if case.bidirectional else 1)
        self.dy = target.put(torch.randn(rows, width, generator=generator))

    def forward(self) -> Tensor:
        """Give all h, rows ``[R, H]`` or ``[R, 2H]``."""
        x = self.x if self.lengths is None else pack_padded_sequence(self.x, self.lengths)
        given = self.model(x)
        y = given[0] if type(given) is tuple else given  # packed rows are a kind of tuple too
        rows = y.data if isinstance(y, PackedSequence) else y
        return rows.reshape(len(self.dy), -1)

    def step(self) -> None:
        """Forward and backward; gradients anew."""
        self.model.zero_grad()
        self.x.grad = None
        self.forward().backward(self.dy)

    def evaluate(self) -> None:
        with torch.no_grad():
            self.forward()

    def results(self, seed: int) -> list[Tensor]:
        """Give the output and every gradient."""
        torch.manual_seed(seed)
        parameters = list(self.model.parameters())
        y = self.forward()
        return [y.detach(), *torch.autograd.grad(y, [self.x, *parameters], self.dy)]

    def doubled(self) -> Work:
        """Give the same in float64."""
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model).double()
        twin.x = self.x.detach().double().requires_grad_()
        twin.dy = self.dy.double()
        return twin


def workload(
    cases: Sequence[Case], name: str, variant: str, target: Target = CPU
) -> Callable[[], Any]:
    """Give a training step of a case: ``"torch"`` or ``"ours"``."""
    case = next(case for case in cases if case.name == name)
    torch.manual_seed(0)
    model = Plain(case, case.p) if variant == "torch" else structured(case, case.p)
    return Work(case, model, target).step


def run(repeats: int, cases: Sequence[Case], target: Target = CPU) -> Iterator[Row]:
    """Row after row: ``step`` at p, ``step`` at 0, ``eval``.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in cases:
        torch.manual_seed(0)
        suite = case.cell.suite
        memory = {v: peak_mb(suite, case.name, v, target) for v in ("torch", "ours")}
        for p in (case.p, 0.0):
            turns = works(case, p, target)
            ours, nothing = turns["ours"], turns["dense"]
            with ops.use("naive"):
                truth = ours.doubled().results(seed=2)
            error = relative_error(ours.results(seed=2), truth)
            gate(case.name, error, target.tolerance(TOLERANCE))
            more = {"peak_mb": memory["ours"], "torch_peak_mb": memory["torch"]} if p else {}
            steps = {"torch": turns["torch"].step, "dense": forced(nothing.step, target.own),
                     "ours": ours.step}  # fmt: skip
            if target.loops(case.recurrent and p > 0):
                steps["loop"] = forced(ours.step, "dense")
            yield _row(
                case, "step", p, target.alternate(steps, repeats),
                ideal=case.ideal if p else 1.0, max_rel_err=error,
                draw_ms=_draw_ms(case) if p and not target.gpu else None,
                torch_bf16_ms=None if target.gpu else _lowered_ms(turns["torch"]), **more,
            )  # fmt: skip

        for work in turns.values():
            work.model.eval()
        with torch.no_grad():
            error = relative_error([ours.forward()], [turns["torch"].doubled().forward()])
        gate(f"{case.name} eval", error, target.tolerance(TOLERANCE))
        evaluations = {"torch": turns["torch"].evaluate, "ours": ours.evaluate,
                       "dense": forced(nothing.evaluate, target.own)}  # fmt: skip
        yield _row(
            case, "eval", case.p, target.alternate(evaluations, repeats), ideal=1.0,
            max_rel_err=error,
        )  # fmt: skip


def works(case: Case, p: float, target: Target = CPU) -> dict[str, Work]:
    """Build what takes turns, all with the same weights."""
    models = {"torch": Plain(case, p), "ours": structured(case, p), "dense": structured(case, 0.0)}
    for name in ("ours", "dense"):
        models[name].load_state_dict(models["torch"].rnn.state_dict())  # type: ignore[union-attr]
    return {name: Work(case, model, target) for name, model in models.items()}


def _row(case: Case, phase: str, p: float, ms: Mapping[str, float], **more: Any) -> Row:
    return Row(
        suite=case.cell.suite, case=case.name, phase=phase, p=p, torch_ms=ms["torch"],
        dense_ms=ms["dense"], ours_ms=ms["ours"], loop_ms=ms.get("loop"), **more,
    )  # fmt: skip


def _lowered_ms(work: Work) -> float | None:
    """Time a training step under autocast to bfloat16, in a few rounds: where no instruction
    multiplies in it, torch takes many times as long, or cannot train an LSTM at all (None)."""

    def step() -> None:
        with Target(precision="bfloat16").autocast():
            work.step()

    try:
        return alternate({"step": step}, 5)["step"]
    except RuntimeError:
        return None


def _draw_ms(case: Case) -> float:
    """Time what drawing the sets of one step costs, for all directions."""
    pattern, T = case.pattern(case.p), case.lengths[1]
    directions = 2 if case.bidirectional else 1

    def draw() -> None:
        pattern.draw(T, case.batch, case.inputs)
        for _ in range(directions if case.recurrent else 0):
            pattern.draw(T, case.batch, case.hidden)

    return alternate({"draw": draw}, 25)["draw"]
