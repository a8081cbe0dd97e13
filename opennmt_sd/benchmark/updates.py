"""Whole updates of translators, as a toolkit's own trainer makes them, and their phases: with its
own modules and with ours, turn by turn.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd.benchmark.measure import HOST, WARM_UP, Clock, alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.benchmark.target import CPU, Target, on_engine
from opennmt_sd.benchmark.translation import LAYERS, PHASES, SOURCE, TARGET, Case
from opennmt_sd.dropout.staggered import StaggeredSets
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan

TOLERANCE = 1e-4  # float32 along 26 and 31 dependent steps


@dataclass(frozen=True)
class Suite:
    """A suite of updates.

    Args:
        name: of the suite, and of the module that has it.
        cases: what it can measure.
        work: makes a translator in training, with its batches: ``work(case, ours=, p=, engine=,
            weights=, target=)``, which has ``model``, ``trainer``, ``optim``, ``step``,
            ``results`` and ``truth``.
    """

    name: str
    cases: Sequence[Case]
    work: Callable[..., Any]

    def works(self, case: Case, target: Target = CPU) -> dict[str, Any]:
        """Build what takes turns, all with the same weights."""
        torch.manual_seed(0)
        stock = self.work(case, ours=False, p=case.p, target=target)
        more = {"weights": stock, "target": target}
        return {
            "torch": stock,
            "dense": self.work(case, ours=True, p=0.0, engine=target.own, **more),
            "ours": self.work(case, ours=True, p=case.p, **more),
        }

    def workload(self, name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
        """Give an update of a case: ``"torch"`` or ``"ours"``."""
        case = next(case for case in self.cases if case.name == name)
        torch.manual_seed(0)
        return self.work(case, ours=variant == "ours", p=case.p, target=target).step

    def warm_up(self) -> None:
        """Load what both sides set up once in a process, so that it is not taken for memory of a
        workload."""
        case = Case("small", 16, 50, 0.5, recurrent=True, sentences=2, batches=1)
        for ours in (False, True):
            self.work(case, ours=ours, p=case.p).step()

    def run(
        self, repeats: int = 15, cases: Sequence[Case] | None = None, target: Target = CPU
    ) -> Iterator[Row]:
        """Measure, for each case, the row ``step``, and one for each of the :data:`PHASES`, which
        are timed in further updates, a third as many.

        Raises:
            RedGateError: a case computes something wrong; nothing more is measured.
        """
        for case in self.cases if cases is None else cases:
            yield from self._measured(case, repeats, target)
            gc.collect()  # models and trainers know each other: gigabytes would wait

    def _measured(self, case: Case, repeats: int, target: Target) -> Iterator[Row]:
        turns = self.works(case, target)
        error = check(case, turns, target.tolerance(TOLERANCE))
        memory = {v: peak_mb(self.name, case.name, v, target) for v in ("torch", "ours")}
        if target.loops(case.recurrent):
            turns["loop"] = on_engine(turns["ours"], "dense")
        ms = target.alternate({name: work.step for name, work in turns.items()}, repeats)
        yield self._row(
            case, "step", ms, error, draw_ms=draw_ms(case) if case.p and not target.gpu else None,
            units_per_s=case.words / ms["ours"] * 1e3,
            torch_units_per_s=case.words / ms["torch"] * 1e3,
            peak_mb=memory["ours"], torch_peak_mb=memory["torch"],
        )  # fmt: skip
        turns.pop("loop", None)  # its modules are ours', which one watches
        watches = {name: Stopwatch(work, target.clock) for name, work in turns.items()}
        alternate({name: watch.update for name, watch in watches.items()}, -(-repeats // 3))
        for phase in PHASES:
            ms = {name: watch.ms(phase) for name, watch in watches.items()}
            yield self._row(case, phase, ms, error)

    def _row(
        self, case: Case, phase: str, ms: Mapping[str, float], error: float, **more: Any
    ) -> Row:
        return Row(
            suite=self.name, case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"],
            dense_ms=ms["dense"], ours_ms=ms["ours"], loop_ms=ms.get("loop"),
            ideal=case.ideals()[phase], max_rel_err=error, **more,
        )  # fmt: skip


def check(case: Case, turns: Mapping[str, Any], tolerance: float = TOLERANCE) -> float:
    """Check ours: in training against the naive engine in float64 (one seed, so the same
    units are dropped); with nothing dropped, in training and in evaluation, against the
    toolkit's own modules in float64.

    Raises:
        RedGateError: it is too large.
    """
    stock, dense, ours = turns["torch"], turns["dense"], turns["ours"]
    errors = [gate(case.name, relative_error(ours.results(2), ours.truth(2)), tolerance)]
    plain = relative_error(dense.results(2), stock.truth(2, p=0.0))
    errors.append(gate(f"{case.name} with nothing dropped", plain, tolerance))
    for work in (stock, ours):
        work.model.eval()
    evaluation = relative_error(ours.results(3), stock.truth(3))
    errors.append(gate(f"{case.name} eval", evaluation, tolerance))
    for work in (stock, ours):
        work.model.train()
    return max(errors)


class Stopwatch:
    """Times the phases of updates, forward and backward of each together.

    A phase lasts until the next one begins. The forward pass enters them as modules are called;
    the backward pass has left a module once the gradient of what it was given is asked for, and
    autograd asks for the latest in the forward pass first.

    Args:
        work: whose updates; from now on they all are slower by the marks.
        clock: of the device that does the work.
    """

    ORDER = ("optimizer", "encoder", "decoder", "generator+loss", "decoder", "encoder", "optimizer")

    def __init__(self, work: Any, clock: Clock = HOST) -> None:
        self.work, self.clock = work, clock
        self.rounds: list[list[tuple[str, Any]]] = []  # phase, the clock's mark of its begin
        work.model.encoder.register_forward_pre_hook(lambda *_: self._enter("encoder"))
        work.model.encoder.register_forward_hook(self._encoded)
        work.trainer.train_loss.register_forward_pre_hook(self._decoded)
        step = work.optim.step

        def watched_step() -> None:
            self._enter("optimizer")
            step()

        work.optim.step = watched_step

    def update(self) -> None:
        """Make one update. It begins with ``zero_grad``.

        Raises:
            RuntimeError: the phases did not come in their order.
        """
        self.rounds.append([])
        self.clock.settle()
        self._enter("optimizer")
        self.work.step()
        self._enter("end")
        order = tuple(phase for phase, _ in self.rounds[-1][:-1])
        if order != self.ORDER:
            raise RuntimeError(f"an update went through {order}, which should be {self.ORDER}")

    def ms(self, phase: str) -> float:
        """Give the median of the updates after those that warm up."""
        return statistics.median(
            sum(self.clock.ms(begin, end) for (name, begin), (_, end) in zip(marks, marks[1:])
                if name == phase)
            for marks in self.rounds[WARM_UP:]
        )  # fmt: skip

    def _enter(self, phase: str, *_: Any) -> None:
        marks = self.rounds[-1]
        if not marks or marks[-1][0] != phase:
            marks.append((phase, self.clock.mark()))

    def _encoded(self, _: nn.Module, __: Any, output: Any) -> None:
        enc_out, final_states, *_ = output
        if isinstance(final_states, Tensor):  # a GRU's
            final_states = (final_states,)
        for given in (enc_out, *final_states):  # to the decoder
            given.register_hook(lambda _: self._enter("encoder"))
        self._enter("decoder")

    def _decoded(self, _: nn.Module, args: Any) -> None:
        _batch, dec_out, *_more = args
        dec_out.register_hook(lambda _: self._enter("decoder"))
        self._enter("generator+loss")


def draws(case: Case) -> list[tuple[int, int]]:
    """Return for how many steps, and of how many units, sets are drawn in one update."""
    plan, H, T = _plan(case), case.hidden, TARGET[1] - 1
    places = [(SOURCE[1], H)] * LAYERS + [(T, H)] * LAYERS  # embeddings, layers
    places.append((StaggeredSets.count(T, case.sentences) if plan.staggered else T, H))
    if plan.staggered and case.input_feed:
        places.append((T, H))  # what is fed has a draw of its own
    if case.recurrent:
        places += [(SOURCE[1], H // 2)] * 2 * LAYERS + [(T, H)] * LAYERS
    return places


def _plan(case: Case) -> DropoutPlan:
    return DropoutPlan(case.p, time="fixed" if case.fixed else "random")


def draw_ms(case: Case) -> float:
    """Time what drawing the sets of one update costs."""
    pattern, places = _plan(case).pattern("output"), draws(case)

    def draw() -> None:
        for T, width in places:
            pattern.draw(T, case.sentences, width)

    return alternate({"draw": draw}, 25)["draw"]
