"""The suite lm: its rows, its gate, and that all sides do the same work. No time is judged."""

from __future__ import annotations

import itertools

import pytest
import torch

from opennmt_sd import ops
from opennmt_sd.benchmark import lm
from opennmt_sd.benchmark.row import RedGateError

CASES = [
    lm.Case("tiny NR+FC", 24, 0.5, False, 0.05, 5.0, vocabulary=50, T=6, B=4),
    lm.Case("tiny NR+RH+FC", 24, 0.5, True, 0.05, 5.0, vocabulary=50, T=6, B=4),
    lm.Case("tiny", 24, 0.0, False, 0.05, 5.0, vocabulary=50, T=6, B=4),
    lm.Case("tiny GRU NR+RH+FC", 24, 0.5, True, 0.05, 5.0, 50, T=6, B=4, cell="gru"),
]
pytestmark = pytest.mark.skipif(
    "cpu" not in ops.engine_for(), reason="the benchmark measures the native module"
)


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not measured in processes of its own, which take seconds."""
    peaks = {"ours": 90.0, "torch": 100.0}
    monkeypatch.setattr(lm, "peak_mb", lambda suite, case, variant, threads: peaks[variant])


def test_a_row_a_case() -> None:
    rows = list(lm.run(1, CASES))
    assert [(row.suite, row.case, row.phase, row.p) for row in rows] == [
        ("lm", "tiny NR+FC", "step", 0.5),
        ("lm", "tiny NR+RH+FC", "step", 0.5),
        ("lm", "tiny", "step", 0.0),
        ("lm", "tiny GRU NR+RH+FC", "step", 0.5),
    ]
    for row in rows:
        assert min(row.torch_ms, row.dense_ms, row.ours_ms) > 0
        assert row.units_per_s == pytest.approx(24 / row.ours_ms * 1e3)
        assert row.torch_units_per_s == pytest.approx(24 / row.torch_ms * 1e3)
        assert (row.peak_mb, row.torch_peak_mb) == (90.0, 100.0)
        assert 0 < row.max_rel_err <= lm.TOLERANCE
        assert (row.draw_ms is None) == (row.p == 0)


def test_cases_are_those_of_the_ceilings_by_arithmetic() -> None:
    """docs/method.md: dense products over what is left of them."""
    assert {case.name: round(case.ideal, 2) for case in lm.CASES} == {
        "medium NR+FC": 1.59, "medium NR+RH+FC": 2.0, "medium": 1.0,
        "medium GRU NR+RH+FC": 2.0,
        "large NR+FC": 1.73, "large NR+RH+FC": 2.86, "large": 1.0,
    }  # fmt: skip
    assert {case.words for case in lm.CASES} == {700}


def test_both_sides_learn_the_same_where_nothing_is_dropped() -> None:
    """The same words, loss, clip and update, and a state that is carried."""
    case = CASES[2]
    plain, ours = lm.Work(case, lm.plain(case)), lm.Work(case, lm.structured(case, 0.0))
    ours.model.load_state_dict(plain.model.state_dict())
    before = [parameter.detach().clone() for parameter in ours.model.parameters()]
    for _ in range(3):
        plain.step()
        ours.step()
    torch.testing.assert_close(ours.model.state_dict(), plain.model.state_dict())
    torch.testing.assert_close(ours.state, plain.state)
    assert not any(map(torch.equal, before, ours.model.parameters()))


@pytest.mark.parametrize("build", [lm.plain, lambda case: lm.structured(case, 0.0)])
def test_an_update_is_the_recipes_own(build) -> None:
    """Written out once more: the mean loss times T, the norm clipped, plain SGD at rate 1, and the
    state carried."""
    case = lm.Case("tight", 24, 0.0, False, 0.05, 0.1, vocabulary=50, T=6, B=4)
    work, again = (lm.Work(case, build(case)) for _ in range(2))
    again.model.load_state_dict(work.model.state_dict())
    weights, state = list(again.model.parameters()), None
    for _ in range(2):
        work.step()
        loss, _, state = again.model(*next(again.segments), state)
        gradients = torch.autograd.grad(6 * loss, weights)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        assert norm > 0.1
        for weight, g in zip(weights, gradients):
            weight.data -= g * 0.1 / norm
    torch.testing.assert_close(list(work.model.parameters()), weights)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_drop_at_the_same_places(case: lm.Case) -> None:
    plain, ours = lm.plain(case), lm.structured(case, case.p)
    stack = ours.stacks[0]
    patterns = [stack.input_dropout, stack.dropout, ours.decoder.dropout]
    assert [pattern.p for pattern in patterns] == [case.p] * 3
    assert [plain.dropout.p, plain.stacks[0].dropout, plain.output_dropout.p] == [case.p] * 3
    assert stack.recurrent_dropout.p == (case.p if case.recurrent else 0)
    assert stack.mode == plain.stacks[0].mode == case.cell.upper()


def test_p_0_runs_on_our_own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called ours at p = 0 must not be torch's layer."""
    seen: list[str | None] = []
    forward = lm.LanguageModel.forward
    monkeypatch.setattr(
        lm.LanguageModel, "forward",
        lambda *given, **more: seen.append(ops.forced()) or forward(*given, **more),
    )  # fmt: skip
    list(itertools.islice(lm.run(1, CASES[1:2]), 1))
    assert set(seen) == {None, "cpu", "naive"}


@pytest.mark.parametrize("phase", ["tiny NR+RH+FC:", "tiny NR+RH+FC eval:"])
def test_no_speed_where_results_are_wrong(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is a little off, in training or in evaluation alone."""
    forward = lm.LanguageModel.forward

    def wrong(self, *given, **more):
        output = forward(self, *given, **more)
        off = ops.forced() is None and self.training != ("eval" in phase)
        return output._replace(loss=output.loss * 1.001) if off else output

    monkeypatch.setattr(lm.LanguageModel, "forward", wrong)
    rows = lm.run(1, CASES[1:])
    with pytest.raises(RedGateError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{phase} the largest relative error is 1.0e-03, 1e-04")
    assert list(rows) == []  # nor of any other case


@pytest.mark.parametrize(
    ("variant", "model_type"), [("torch", "ReferenceLanguageModel"), ("ours", "LanguageModel")]
)
def test_memory_is_that_of_an_update(variant, model_type, monkeypatch) -> None:
    monkeypatch.setattr(lm, "CASES", CASES)
    update = lm.workload("tiny NR+RH+FC", variant)
    model = update.__self__.model
    assert type(model).__name__ == model_type
    before = model.decoder.weight.detach().clone()
    update()
    assert not torch.equal(before, model.decoder.weight)
