"""The suite tagger: its rows, its gate, and that all sides do the same work. No time is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opennmt_sd import ops
from opennmt_sd.benchmark import tagger, tagger_work
from opennmt_sd.benchmark.row import RedGateError
from opennmt_sd.benchmark.tagger_work import Case, vocabulary
from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.training.recipe import Recipe

SMALL = {"hidden": 12, "word_dim": 8, "batches": 3, "sentences": 20}
CASES = [
    Case("tiny NR+RH", 0.5, True, **SMALL),
    Case("tiny", 0.0, False, **SMALL),
    Case("tiny GRU NR+RH", 0.5, True, **SMALL, cell="gru"),
]
pytestmark = pytest.mark.skipif(
    "cpu" not in ops.engine_for(), reason="the benchmark measures the native module"
)


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not measured in processes of its own, which take seconds."""
    peaks = {"ours": 90.0, "torch": 100.0}
    monkeypatch.setattr(tagger, "peak_mb", lambda suite, case, variant, threads: peaks[variant])


@pytest.mark.slow
def test_rows() -> None:
    rows = list(tagger.run(1, CASES))
    assert [(row.suite, row.case, row.phase, row.p) for row in rows] == [
        ("tagger", "tiny NR+RH", "step", 0.5),
        ("tagger", "tiny", "step", 0.0),
        ("tagger", "tiny", "eval", 0.0),
        ("tagger", "tiny GRU NR+RH", "step", 0.5),
    ]
    for row, sentences, batches in zip(rows, (30, 30, 20, 30), (3, 3, 1, 3)):
        assert min(row.torch_ms, row.dense_ms, row.ours_ms) > 0
        per_batch = sentences / batches * 1e3
        assert row.units_per_s == pytest.approx(per_batch / row.ours_ms)
        assert row.torch_units_per_s == pytest.approx(per_batch / row.torch_ms)
        assert 0 < row.max_rel_err <= tagger.TOLERANCE
        measured = (90.0, 100.0) if row.p else (None, None)
        assert (row.peak_mb, row.torch_peak_mb) == measured
        assert (row.draw_ms is None) == (row.p == 0)


def test_cases() -> None:
    assert {case.name: round(case.ideal, 2) for case in tagger.CASES} == {
        "ma_hovy NR": 1.25, "ma_hovy NR+RH": 2.0, "ma_hovy": 1.0,
        "ma_hovy GRU NR+RH": 2.0,
    }  # fmt: skip


def test_data_are_as_described() -> None:
    assert f"{len(vocabulary().words):,}" in (tagger.__doc__ or "")
    shipped = Corpora.folder()
    assert vocabulary().trained > len(shipped.vocabulary().words)
    batches = tagger.works(Case("tiny", 0.0, False, 12, 8))["ours"].batches
    assert len(batches) == 30
    assert {batch.sentences for batch in batches} == {10}
    assert len({len(batch.sizes) for batch in batches}) > 10  # lengths


def test_tags_that_are_compared_are_not_all_alike() -> None:
    turns = tagger.works(CASES[1])
    tags = turns["ours"].predict()
    assert tags == turns["torch"].predict()
    assert len({tag for sentence in tags for tag in sentence}) > 5


def test_both_sides_learn_the_same_where_nothing_is_dropped() -> None:
    """The same batches, loss, clip and update."""
    turns = tagger.works(CASES[1])
    before = [parameter.detach().clone() for parameter in turns["ours"].model.parameters()]
    for work in turns.values():
        work.train()
    after = turns["torch"].model.state_dict()
    for name in ("dense", "ours"):
        torch.testing.assert_close(turns[name].model.state_dict(), after, msg=name)
    assert not any(map(torch.equal, before, turns["ours"].model.parameters()))
    assert turns["dense"].engine == "cpu"  # our own, not torch's layer


@pytest.mark.parametrize("case", tagger.CASES, ids=lambda case: case.name)
def test_both_sides_drop_at_the_same_places(case: Case) -> None:
    turns = tagger.works(case)
    plain, ours = turns["torch"].model, turns["ours"].model
    assert ours.recurrent.mode == getattr(plain, case.cell).mode == case.cell.upper()
    assert ours.recurrent.input_dropout.p == plain.drop_input.p == case.p
    assert ours.output.dropout.p == plain.drop_output.p == case.p
    assert ours.chars.dropout == plain.chars.dropout == case.p
    assert ours.recurrent.recurrent_dropout.p == (case.p if case.recurrent else 0)


@pytest.mark.parametrize("clip", [0.1, 1e6])
@pytest.mark.parametrize("side", ["torch", "ours"])
def test_an_update_is_the_recipes_own(side, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out once more: the mean of the sentences, the norm clipped, SGD with momentum."""
    assert Recipe(lr=0.015, momentum=0.9, clip=5) == tagger_work.RECIPE
    monkeypatch.setattr(tagger_work, "RECIPE", replace(tagger_work.RECIPE, clip=clip))
    work, again = (tagger.works(CASES[1])[side] for _ in range(2))
    weights, velocity = list(again.model.parameters()), [0.0] * 99
    for batch in work.batches:
        gradients = torch.autograd.grad(again.model(batch) / 10, weights)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for n, (weight, g) in enumerate(zip(weights, gradients)):
            velocity[n] = 0.9 * velocity[n] + g * min(1.0, clip / float(norm))
            weight.data -= 0.015 * velocity[n]
    work.train()
    torch.testing.assert_close(list(work.model.parameters()), weights)


def test_no_speed_where_training_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = tagger.Tagger.forward
    monkeypatch.setattr(
        tagger.Tagger, "forward",
        lambda self, batch: forward(self, batch) * (1.001 if ops.forced() is None else 1.0),
    )  # fmt: skip
    rows = tagger.run(1, CASES)
    with pytest.raises(RedGateError, match=r"^tiny NR\+RH: the largest relative error is 1.0e-03"):
        next(rows)
    assert list(rows) == []


@pytest.mark.parametrize(
    ("method", "change", "text"),
    [
        ("scores", lambda scores: scores * 1.001, "tiny eval: the largest .* is 1.0e-03"),
        ("decode", lambda tags: (tags + 1) % 3, "tiny eval: 20 sentences have other tags"),
    ],
)
def test_no_speed_where_prediction_is_wrong(method, change, text, monkeypatch) -> None:
    right = getattr(tagger.Tagger, method)

    def wrong(self, batch):
        found = right(self, batch)
        return found if self.training else change(found)

    monkeypatch.setattr(tagger.Tagger, method, wrong)
    with pytest.raises(RedGateError, match=text):
        next(tagger.run(1, CASES[1:]))


@pytest.mark.parametrize("variant", ["torch", "ours"])
def test_memory_is_that_of_updates(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagger, "CASES", CASES)
    updates = tagger.workload("tiny NR+RH", variant)
    model = updates.__self__.model
    assert type(model).__name__ == {"torch": "PlainTagger", "ours": "Tagger"}[variant]
    before = model.words.weight.detach().clone()
    updates()
    assert not torch.equal(before, model.words.weight)
