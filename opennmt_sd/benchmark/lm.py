"""Suite ``lm``: a whole update of the language model (forward, loss, backward, clip, update)
against the same model in plain torch; each size also with nothing dropped.

The words are random: what an update costs does not depend on them.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.benchmark.sgd_update import Update
from opennmt_sd.benchmark.target import CPU, Target, on_engine
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.lm.model import LanguageModel, State
from opennmt_sd.lm.reference import ReferenceLanguageModel
from opennmt_sd.nn.by_name import STRUCTURED
from opennmt_sd.training.recipe import Recipe

TOLERANCE = 1e-4  # float32 along 35 dependent steps
LAYERS = 2
SEGMENTS = 8  # different ones, in turn


@dataclass(frozen=True)
class Case:
    """A recipe of Zaremba et al. 2014, with structured dropout.

    Args:
        name: of the row.
        hidden: H, also the embedding's width.
        p: rate at all places.
        recurrent: RH besides NR and FC.
        init, clip: bound of the initial weights; norm of the whole gradient.
        vocabulary, T, B: words known, steps of a segment, streams.
        cell: of the layers.
        fixed: one set for all steps: Case IV.
    """

    name: str
    hidden: int
    p: float
    recurrent: bool
    init: float
    clip: float
    vocabulary: int = 10_000
    T: int = 35
    B: int = 20
    cell: str = "lstm"
    fixed: bool = False

    def pattern(self, p: float) -> DropoutPattern:
        return DropoutPattern(p, time="fixed" if self.fixed else "random")

    @property
    def words(self) -> int:
        """Return the words of an update."""
        return self.T * self.B

    @property
    def ideal(self) -> float:
        """All three phases shrink alike, so the forward pass tells."""
        kept, gates = 1 - self.p, LAYERS * STRUCTURED[self.cell].gates * self.hidden
        nr, rh, fc = gates, gates, self.vocabulary  # outputs, for H inputs each
        return (nr + rh + fc) / (nr * kept + rh * (kept if self.recurrent else 1) + fc * kept)


CASES = [
    Case("medium NR+FC", 650, 0.5, False, 0.05, 5.0),
    Case("medium NR+RH+FC", 650, 0.5, True, 0.05, 5.0),
    Case("medium", 650, 0.0, False, 0.05, 5.0),
    Case("medium GRU NR+RH+FC", 650, 0.5, True, 0.05, 5.0, cell="gru"),
    Case("large NR+FC", 1500, 0.65, False, 0.04, 10.0),
    Case("large NR+RH+FC", 1500, 0.65, True, 0.04, 10.0),
    Case("large", 1500, 0.0, False, 0.04, 10.0),
]
GPU_CASES = [
    Case("medium NR+FC IV", 650, 0.5, False, 0.05, 5.0, fixed=True),
    Case("large NR+FC IV", 1500, 0.65, False, 0.04, 10.0, fixed=True),
]


def plain(case: Case) -> nn.Module:
    """Build what a user would run otherwise: torch's layers, ``nn.Dropout``, ``nn.Linear``."""
    return ReferenceLanguageModel(
        case.vocabulary, embedding=case.hidden, hidden=case.hidden, layers=LAYERS,
        cell=case.cell, nr=case.p, fc=case.p, init=case.init,
    )  # fmt: skip


def structured(case: Case, p: float) -> nn.Module:
    pattern = case.pattern(p)
    return LanguageModel(
        case.vocabulary, embedding=case.hidden, hidden=case.hidden, layers=LAYERS,
        cell=case.cell, nr=pattern, fc=pattern, rh=pattern if case.recurrent else None,
        init=case.init,
    )  # fmt: skip


class Work:
    """A model in training, with its words.

    Args:
        engine: runs the ops; ``"cpu"`` also where ours would leave the work to torch.
        target: the device, and the precision: float32, or mixed as the trainer has it.
    """

    def __init__(
        self, case: Case, model: nn.Module, engine: str = "auto", target: Target = CPU
    ) -> None:
        self.case, self.engine, self.target = case, engine, target
        self.model = model.to(target.device)
        self.update = Update(
            self.model, Recipe(lr=1.0, clip=case.clip), device=target.device,
            plain=not isinstance(model, LanguageModel),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        shape = (SEGMENTS, case.T + 1, case.B)
        words = torch.randint(case.vocabulary, shape, generator=generator).to(target.device)
        self.segments = itertools.cycle([(text[:-1], text[1:]) for text in words])
        self.state: State | None = None  # carried from segment to segment

    def step(self) -> None:
        """Make an update, as the trainer does; the loss is summed over time."""
        ids, targets = next(self.segments)
        with ops.use(self.engine), self.update.gradients():
            with self.target.autocast():
                loss, _, self.state = self.model(ids, targets, self.state, scale=float(self.case.T))
            loss.backward()
            self.update.make()

    def results(self, seed: int) -> list[Tensor]:
        """Give the loss, the final state and every gradient; in evaluation without gradients."""
        parameters = list(self.model.parameters())
        ids, targets = torch.randint(
            self.case.vocabulary, (2, self.case.T, self.case.B),
            generator=torch.Generator().manual_seed(seed),
        ).to(self.target.device)  # fmt: skip
        parts = len(STRUCTURED[self.case.cell].state_names)  # h and c, or h alone
        state = torch.linspace(-0.5, 0.5, parts * LAYERS * self.case.B * self.case.hidden)
        state = state.to(parameters[0]).view(parts, LAYERS, self.case.B, -1)
        torch.manual_seed(seed)
        with self.target.autocast():
            loss, _, final = self.model(ids, targets, (tuple(state),))
        found = [loss.detach(), *itertools.chain(*final)]
        if self.model.training:
            found += torch.autograd.grad(loss, parameters)
        return found


def truth(case: Case, model: nn.Module, seed: int) -> list[Tensor]:
    """Give what a model gives in float64, with the naive engine where it asks for one."""
    on = Target(next(model.parameters()).device)
    with ops.use("naive"):
        return Work(case, copy.deepcopy(model).double(), target=on).results(seed)


def workload(name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
    """Give an update of a case: ``"torch"`` or ``"ours"``."""
    case = next(case for case in (*CASES, *GPU_CASES) if case.name == name)
    torch.manual_seed(0)
    model = plain(case) if variant == "torch" else structured(case, case.p)
    return Work(case, model, target=target).step


def run(
    repeats: int = 15, cases: Sequence[Case] | None = None, target: Target = CPU
) -> Iterator[Row]:
    """Measure: a row a case.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in CASES if cases is None else cases:
        torch.manual_seed(0)
        works = {
            "torch": Work(case, plain(case), target=target),
            "dense": Work(case, structured(case, 0.0), target.own, target),
            "ours": Work(case, structured(case, case.p), target=target),
        }
        for name in ("dense", "ours"):
            works[name].model.load_state_dict(works["torch"].model.state_dict())
        error = check(case, works["torch"], works["ours"])
        memory = {v: peak_mb("lm", case.name, v, target) for v in ("torch", "ours")}
        if target.loops(case.recurrent):
            works["loop"] = on_engine(works["ours"], "dense")
        ms = target.alternate({name: work.step for name, work in works.items()}, repeats)
        yield Row(
            suite="lm", case=case.name, phase="step", p=case.p, torch_ms=ms["torch"],
            dense_ms=ms["dense"], ours_ms=ms["ours"], loop_ms=ms.get("loop"), ideal=case.ideal,
            max_rel_err=error, draw_ms=draw_ms(case) if case.p and not target.gpu else None,
            units_per_s=case.words / ms["ours"] * 1e3,
            torch_units_per_s=case.words / ms["torch"] * 1e3,
            peak_mb=memory["ours"], torch_peak_mb=memory["torch"],
        )  # fmt: skip


def check(case: Case, reference: Work, ours: Work) -> float:
    """Check ours: in training against the naive engine in float64 (one seed, so the same
    units are dropped), in evaluation against the plain model in float64.

    Raises:
        RedGateError: it is too large.
    """
    tolerance = ours.target.tolerance(TOLERANCE)
    training = relative_error(ours.results(2), truth(case, ours.model, 2))
    gate(case.name, training, tolerance)
    for work in (reference, ours):
        work.model.eval()
    with torch.no_grad():
        evaluation = relative_error(ours.results(3), truth(case, reference.model, 3))
    for work in (reference, ours):
        work.model.train()
    return max(training, gate(f"{case.name} eval", evaluation, tolerance))


def draw_ms(case: Case) -> float:
    """Time what drawing the sets of one update costs."""
    pattern = case.pattern(case.p)
    places = LAYERS * (2 if case.recurrent else 1) + 1  # NR, RH, FC

    def draw() -> None:
        for _ in range(places):
            pattern.draw(case.T, case.B, case.hidden)

    return alternate({"draw": draw}, 25)["draw"]
