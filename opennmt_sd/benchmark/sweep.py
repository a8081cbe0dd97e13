"""Suite ``sweep``: random layers, cells and projections, so that none is slower than torch's.

Each is measured in training and in evaluation, against ``nn.Dropout`` with torch's own, and against
our kernels on a masked input, of which they leave nothing out. torch's layers have no recurrent
dropout: where ours drops from the recurrence, torch's do without, and so does what leaves nothing
out. A cell is a loop of steps, where ``nn.Dropout`` can drop from the state too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from opennmt_sd import ops
from opennmt_sd.benchmark import shapes
from opennmt_sd.benchmark.measure import Turns, alternate
from opennmt_sd.benchmark.recurrent import Case, Plain, Work, structured
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.benchmark.shapes import Shape, Steps
from opennmt_sd.benchmark.target import forced
from opennmt_sd.nn import StructuredDropout

SEED, SHAPES = 0, 300
FLOOR = 0.95  # of torch's speed: what is slower is an error
BUDGET_MS = 300.0  # of the rounds of one phase
PATIENCE = (1, 3, 9)  # times as many rounds, before what is slower counts
TOLERANCE = 2e-4  # float32 along up to 100 dependent steps
SHOWN = 10


def cases(seed: int = SEED, count: int = SHAPES, threads: int | None = None) -> list[Shape]:
    """Draw the shapes; each has one thread or two, or as many as are asked for."""
    return shapes.draw(seed, count, (threads,) if threads else (1, min(2, torch.get_num_threads())))


def run(repeats: int, cases: Sequence[Shape]) -> Iterator[Row]:
    """Row after row: ``step`` and ``eval`` of each shape.

    Raises:
        RedGateError: a shape computes something wrong; nothing more is measured.
    """
    before = torch.get_num_threads()
    try:
        for shape in cases:
            torch.set_num_threads(shape.threads)
            yield from _rows(shape.case, repeats)
    finally:
        torch.set_num_threads(before)


def _rows(case: Case, repeats: int) -> Iterator[Row]:
    torch.manual_seed(0)
    works = _works(case)
    stock, ours, dense = works["torch"], works["ours"], works["dense"]
    with ops.use("naive"):
        truth = ours.doubled().results(seed=2)
    error = gate(case.name, relative_error(ours.results(seed=2), truth), TOLERANCE)
    steps = {"torch": stock.step, "dense": forced(dense.step, "cpu"), "ours": ours.step}
    yield _row(case, "step", case.ideal, error, _measured(steps, repeats))

    for work in works.values():
        work.model.eval()
    with torch.no_grad():
        error = relative_error([ours.forward()], [stock.doubled().forward()])
    gate(f"{case.name} eval", error, TOLERANCE)
    evaluations = {"torch": stock.evaluate, "dense": forced(dense.evaluate, "cpu"),
                   "ours": ours.evaluate}  # fmt: skip
    yield _row(case, "eval", 1.0, error, _measured(evaluations, repeats))


def _works(case: Case) -> dict[str, Work]:
    """Build what takes turns, all with the same weights."""
    plain, ours, nothing = Plain(case, case.p), structured(case, case.p), structured(case, 0.0)
    if isinstance(plain.rnn, Steps):  # not before the loop
        plain.rnn.of_x.p, plain.dropout.p = plain.dropout.p, 0.0
        plain.rnn.of_h.p = case.p if case.recurrent else 0.0
    for layer in (ours, nothing):
        layer.load_state_dict(plain.rnn.state_dict())
    masks = StructuredDropout(case.pattern(case.p if case.input else 0.0))
    models = {"torch": plain, "ours": ours, "dense": nn.Sequential(masks, nothing)}
    return {name: Work(case, model) for name, model in models.items()}


def _measured(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Give the median times; what seems to be slower than torch's is measured again, for longer."""
    ms: dict[str, float] = {}
    for patience in PATIENCE:
        ms = alternate(variants, repeats * patience, Turns(), BUDGET_MS * patience)
        if ms["torch"] / ms["ours"] >= FLOOR:
            break
    return ms


def _row(case: Case, phase: str, ideal: float, error: float, ms: Mapping[str, float]) -> Row:
    return Row(
        suite="sweep", case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"],
        dense_ms=ms["dense"], ours_ms=ms["ours"], ideal=ideal, max_rel_err=error,
    )  # fmt: skip


# ---------------------------------------------------------------- what they say


def worst(rows: Sequence[Row]) -> list[Row]:
    """Return the slowest ones, against torch's."""
    return sorted(rows, key=lambda row: row.speedup_vs_torch)[:SHOWN]


def words(rows: Sequence[Row]) -> list[str]:
    """Return the medians, in a sentence each."""
    groups = {
        "training at p = .5": [row for row in rows if row.phase == "step" and row.p == 0.5],
        "training": [row for row in rows if row.phase == "step"],
        "evaluation": [row for row in rows if row.phase == "eval"],
    }
    return [
        f"{name}: median of {len(found)} "
        f"{statistics.median(row.speedup_vs_torch for row in found):.2f}x against torch, "
        f"{statistics.median(row.speedup_vs_dense for row in found):.2f}x against leaving nothing "
        "out"
        for name, found in groups.items() if found
    ]  # fmt: skip


def slower(rows: Sequence[Row]) -> str | None:
    """Return what is wrong: how many are slower than torch's; None where none is."""
    found = [row for row in rows if row.speedup_vs_torch < FLOOR]
    if not found:
        return None
    return (
        f"{len(found)} of {len(rows)} under {FLOOR} of torch's speed, the worst "
        f"{worst(found)[0].speedup_vs_torch:.2f}x ({worst(found)[0].case}, {worst(found)[0].phase})"
    )
