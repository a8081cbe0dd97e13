"""Suite ``tagger``: whole updates of the tagger (forward, loss, backward, clip, update) and its
predictions, against the same model in plain torch with the same CRF, batches and optimizer.

Sentences are those of the WNUT-17 sample. The words of its three files make the vocabulary, 17,831:
nearly as many as CoNLL-2003's 21,010, so that embedding, clip and update weigh what they weigh
there. Making batches is the same for all and outside of an update's time; of a prediction's time
it is part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.memory import peak_mb
from opennmt_sd.benchmark.row import RedGateError, Row, gate, relative_error
from opennmt_sd.benchmark.tagger_work import EVAL_BATCH, Case, Data, Work, vocabulary
from opennmt_sd.benchmark.target import CPU, Target, on_engine
from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.tagger.batches import Batch, in_order
from opennmt_sd.tagger.model import Tagger
from opennmt_sd.tagger.reference import PlainTagger

TOLERANCE = 1e-4  # float32 along 40 dependent steps, and a CRF's

CASES = [
    Case("ma_hovy NR", 0.5, False),
    Case("ma_hovy NR+RH", 0.5, True),
    Case("ma_hovy", 0.0, False),
    Case("ma_hovy GRU NR+RH", 0.5, True, cell="gru"),
]


def works(case: Case, target: Target = CPU) -> dict[str, Work]:
    """Build what takes turns, all with the same weights."""
    torch.manual_seed(0)
    plain = PlainTagger(case.config(case.p), vocabulary())
    dense, ours = (Tagger(case.config(p), vocabulary()) for p in (0.0, case.p))
    for model in (dense, ours):
        model.load_state_dict(plain.state_dict())
    data = Data(case, plain, target)
    return {
        "torch": Work(plain, data, target=target),
        "dense": Work(dense, data, target.own, target),
        "ours": Work(ours, data, target=target),
    }


def workload(name: str, variant: str, target: Target = CPU) -> Callable[[], Any]:
    """Give the updates of a case: ``"torch"`` or ``"ours"``."""
    case = next(case for case in CASES if case.name == name)
    torch.manual_seed(0)
    model = (PlainTagger if variant == "torch" else Tagger)(case.config(case.p), vocabulary())
    return Work(model, Data(case, model, target), target=target).train


def run(
    repeats: int = 15, cases: Sequence[Case] | None = None, target: Target = CPU
) -> Iterator[Row]:
    """Row after row: ``step``; with nothing dropped also ``eval``. Times are of a batch.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in CASES if cases is None else cases:
        turns = works(case, target)
        error = check_step(case, turns["ours"])
        # Before a model has learned: one that has, if only for seconds, tags everything alike.
        eval_error = check_eval(case, turns["torch"], turns["ours"])
        batches, unseen = turns["ours"].batches, turns["ours"].unseen
        more: dict[str, float] = {}
        if case.p:  # with nothing dropped, torch's layers are all there is
            more["peak_mb"] = peak_mb("tagger", case.name, "ours", target)
            more["torch_peak_mb"] = peak_mb("tagger", case.name, "torch", target)
            if not target.gpu:
                more["draw_ms"] = draw_ms(batches, case)
        if target.loops(case.recurrent):
            turns["loop"] = on_engine(turns["ours"], "dense")
        ms = target.alternate({name: work.train for name, work in turns.items()}, repeats)
        yield _row(
            case, "step", ms, batches=len(batches),
            sentences=sum(batch.sentences for batch in batches), ideal=case.ideal,
            max_rel_err=error, **more,
        )  # fmt: skip
        if case.p:
            continue  # prediction drops nothing
        ms = target.alternate({name: work.predict for name, work in turns.items()}, repeats)
        yield _row(
            case, "eval", ms, batches=len(list(in_order(unseen, EVAL_BATCH))),
            sentences=len(unseen.lengths), ideal=1.0, max_rel_err=eval_error,
        )  # fmt: skip


def _row(
    case: Case, phase: str, ms: dict[str, float], *, batches: int, sentences: int, **more: Any
) -> Row:
    """Make a row of the times of a round."""
    return Row(
        suite="tagger", case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"] / batches,
        dense_ms=ms["dense"] / batches, ours_ms=ms["ours"] / batches,
        loop_ms=ms["loop"] / batches if "loop" in ms else None,
        units_per_s=sentences / ms["ours"] * 1e3, torch_units_per_s=sentences / ms["torch"] * 1e3,
        **more,
    )  # fmt: skip


def check_step(case: Case, ours: Work) -> float:
    """Return the error of loss and gradients against the naive engine in float64; one seed, so
    the same units are dropped. The CRF is the same in both.

    Raises:
        RedGateError: it is too large.
    """
    with ops.use("naive"):
        truth = ours.twin(double=True).results(2)
    return gate(case.name, relative_error(ours.twin(double=False).results(2), truth),
                ours.target.tolerance(TOLERANCE))  # fmt: skip


def check_eval(case: Case, plain: Work, ours: Work) -> float:
    """Compare the tags' scores with the plain model's in float64 and, in float32, the tags
    themselves; return the error.

    Raises:
        RedGateError: it is too large, or a tag is another one.
    """
    truth = plain.twin(double=True).scores()
    tolerance = ours.target.tolerance(TOLERANCE)
    error = gate(f"{case.name} eval", relative_error(ours.scores(), truth), tolerance)
    wrong = sum(a != b for a, b in zip(ours.predict(), plain.predict()))
    if wrong and ours.target.precision == "float32":  # rounding to less decides between near ones
        raise RedGateError(
            f"{case.name} eval: {wrong} sentences have other tags than with plain torch: results "
            "are wrong, so no speed is reported"
        )
    return error


def draw_ms(batches: Sequence[Batch], case: Case) -> float:
    """Time what drawing the sets of one update costs."""
    pattern, H = DropoutPattern(case.p), case.hidden
    widths = [
        case.word_dim + case.config(0.0).char_width,
        2 * H,
        *([H, H] if case.recurrent else []),
    ]

    def draw() -> None:
        for batch in batches:
            for width in widths:
                pattern.draw(len(batch.sizes), batch.sentences, width)

    return alternate({"draw": draw}, 25)["draw"] / len(batches)
