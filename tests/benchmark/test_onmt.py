"""The suite onmt: its rows, its gate, and that all sides do the same work. No time is judged."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest
import torch

from opennmt_sd import ops
from opennmt_sd.benchmark import translation, updates
from opennmt_sd.benchmark.row import RedGateError

onmt = pytest.importorskip("opennmt_sd.benchmark.onmt", reason="OpenNMT-py is not installed")
translator = pytest.importorskip("opennmt_sd.benchmark.translator")

SMALL = {"hidden": 16, "vocabulary": 50, "sentences": 4, "batches": 2}
CASES = [
    translation.Case("tiny NR+RH", p=0.5, recurrent=True, **SMALL),
    translation.Case("tiny no-input-feed NR", p=0.3, input_feed=False, **SMALL),
    translation.Case("tiny p0", **SMALL),
    translation.Case("tiny GRU NR+RH", p=0.5, recurrent=True, rnn="GRU", **SMALL),
]
pytestmark = pytest.mark.skipif(
    "cpu" not in ops.engine_for(), reason="the benchmark measures the native module"
)


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not measured in processes of its own, which take seconds."""
    peaks = {"ours": 90.0, "torch": 100.0}
    monkeypatch.setattr(updates, "peak_mb", lambda suite, case, variant, threads: peaks[variant])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_for_the_step_and_for_each_phase(case, caplog, capsys, recwarn) -> None:
    caplog.set_level("INFO")
    rows = list(onmt.run(1, [case]))
    phases = ["step", "encoder", "decoder", "generator+loss", "optimizer"]
    assert [(row.suite, row.case, row.phase, row.p) for row in rows] == [
        ("onmt", case.name, phase, case.p) for phase in phases
    ]
    for row in rows:
        assert min(row.torch_ms, row.dense_ms, row.ours_ms) > 0
        assert 0 < row.max_rel_err <= updates.TOLERANCE
        assert (row.ideal > 1) == (case.p > 0 and row.phase != "optimizer")
    step = rows[0]
    words = sum(int((batch["tgt"][:, 1:] != 1).sum()) for batch in translator.batches(case)) / 2
    assert step.units_per_s == pytest.approx(words / step.ours_ms * 1e3)
    assert step.torch_units_per_s == pytest.approx(words / step.torch_ms * 1e3)
    assert (step.peak_mb, step.torch_peak_mb) == (90.0, 100.0)
    assert (step.draw_ms is None) == (case.p == 0)
    for row in rows[1:]:
        assert row.draw_ms is row.units_per_s is row.peak_mb is None
    assert (caplog.messages, capsys.readouterr(), recwarn.list) == ([], ("", ""), [])


def test_what_an_update_draws() -> None:
    S, T = translation.SOURCE[1], translation.TARGET[1] - 1
    layers = [(S, 8)] * 2 + [(T, 8)] * 2
    staggered = T * 64 // 24, 8
    made = functools.partial(translation.Case, "", 8, 10, 0.3)
    assert updates.draws(made()) == [*layers, staggered, (T, 8)]
    assert updates.draws(made(input_feed=False)) == [*layers, staggered]
    assert updates.draws(made(fixed=True)) == [*layers, (T, 8)]
    recurrent = [(S, 4)] * 4 + [(T, 8)] * 2
    assert updates.draws(made(recurrent=True)) == [*layers, staggered, (T, 8), *recurrent]


def test_cases() -> None:
    assert {
        case.name: [round(case.ideals()[phase], 2) for phase in ("step", *translation.PHASES)]
        for case in onmt.CASES
    } == {
        "500 V15k p.3 NR": [1.3, 1.25, 1.18, 1.43, 1.0],
        "500 V15k p.5 NR": [1.63, 1.5, 1.35, 2.0, 1.0],
        "500 V15k p.5 NR+RH": [1.91, 2.0, 1.76, 2.0, 1.0],
        "500 V15k p0": [1.0] * 5,
        "1024 V10k p.5 NR+RH": [1.87, 2.0, 1.77, 2.0, 1.0],
        "1024 V10k p0": [1.0] * 5,
        "512 V10k no-input-feed p.3 NR": [1.27, 1.25, 1.14, 1.43, 1.0],
        "512 V10k no-input-feed p0": [1.0] * 5,
        "500 V15k p.3 GRU NR": [1.31, 1.25, 1.18, 1.43, 1.0],
        "500 V15k p.5 GRU NR+RH": [1.9, 2.0, 1.71, 2.0, 1.0],
        "500 V15k GRU p0": [1.0] * 5,
    }


@pytest.mark.parametrize(("rnn", "input_feed"), [("LSTM", True), ("LSTM", False), ("GRU", True)])
def test_the_ideal_counts_the_products_of_weights(rnn: str, input_feed: bool) -> None:
    """All weights but the embeddings, once a word, and the attention's own two products."""
    case = translation.Case("", rnn=rnn, input_feed=input_feed, **SMALL)
    model = translator.Work(case, ours=False, p=0.0).model
    of_word = {"encoder": 0, "decoder": 0, "generator": 0}
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embeddings" not in name:
            of_word[name.split(".")[0]] += weight.numel()
    source, target, pairs = 0, 0, 0
    for batch in translator.batches(case):
        source += int(batch["srclen"].sum())
        target += int((batch["tgtlen"] - 1).sum())
        pairs += int((batch["srclen"] * (batch["tgtlen"] - 1)).sum())
    assert case.products() == {
        "encoder": source * of_word["encoder"],
        "decoder": target * of_word["decoder"] + 2 * pairs * case.hidden,
        "generator+loss": target * of_word["generator"],
    }


def test_batches_are_those_of_the_issue() -> None:
    case = onmt.CASES[0]
    batches = translator.batches(case)
    assert len({batch["src"].sum().item() for batch in batches}) == case.batches > 1
    for batch in batches:
        source, target = batch["srclen"].tolist(), batch["tgtlen"].tolist()
        assert len(source) == 64
        assert (min(source), max(source), min(target), max(target)) == (20, 26, 20, 32)
        assert list(zip(source, target)) == sorted(zip(source, target), reverse=True)
        assert batch["src"].shape == (64, 26, 1)
        assert batch["tgt"].shape == (64, 32, 1)
        assert set(batch["tgt"][:, 0, 0].tolist()) == {2}
        assert {int(row[n - 1, 0]) for row, n in zip(batch["tgt"], target)} == {3}
        assert 14_000 < batch["src"].max() < 15_000


def test_options_are_stocks_but_for_what_is_said() -> None:
    stock, ours = (translator.options(CASES[0], ours=ours, p=0.5) for ours in (False, True))
    differences = {key for key in vars(ours) if getattr(ours, key) != getattr(stock, key)}
    assert differences == {
        "encoder_type",
        "decoder_type",
        "brnn",
        "sd_count",
        "sd_recurrent_dropout",
    }
    assert (stock.encoder_type, stock.decoder_type, stock.input_feed) == ("brnn", "rnn", 1)
    assert (ours.encoder_type, ours.decoder_type) == ("sd_brnn", "sd_rnn")
    assert (ours.dropout, ours.sd_recurrent_dropout) == ([0.5], 0.5)
    assert (ours.optim, ours.learning_rate, ours.max_grad_norm) == ("adam", 0.001, 5)
    assert translator.options(CASES[1], ours=True, p=0.3).sd_recurrent_dropout == 0
    assert translator.options(CASES[1], ours=False, p=0.3).input_feed == 0


@pytest.mark.parametrize("case", onmt.GPU_CASES, ids=lambda case: case.name)
def test_options_of_a_gpu(case: translation.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    stock, ours = (translator.options(case, ours=ours, p=0.5, gpu=True) for ours in (False, True))
    assert stock.gpu_ranks == ours.gpu_ranks == [0]
    assert (stock.world_size, ours.sd_time) == (1, "fixed")
    assert (stock.sd_time, translator.options(CASES[0], ours=True, p=0.5).sd_time) == (
        "random",
    ) * 2
    assert translator.options(case, ours=True, p=0.5).gpu_ranks == []


def test_stock_is_stocks_own() -> None:
    """Nothing of the plugin is in what ours is compared with."""
    torch_, ours = (translator.Work(CASES[0], ours=ours, p=0.5) for ours in (False, True))
    for module in (*torch_.model.modules(), *torch_.trainer.train_loss.modules()):
        assert type(module).__module__.split(".")[0] in ("onmt", "torch")
    for module in (ours.model.encoder, ours.model.decoder):
        assert type(module).__module__.startswith("opennmt_sd.")


def test_both_sides_learn_the_same_where_nothing_is_dropped() -> None:
    """The same weights, batches, loss, clip, update and statistics."""
    turns = onmt.SUITE.works(CASES[2])
    before = {k: v.clone() for k, v in turns["torch"].model.state_dict().items()}
    for work in turns.values():
        for _ in range(3):
            work.step()
    after = turns["torch"].model.state_dict()
    assert not any(torch.equal(before[key], after[key]) for key in before)
    counts = turns["torch"].statistics
    for name in ("dense", "ours"):
        ours = turns[name].model.state_dict()
        torch.testing.assert_close(dict(sorted(ours.items())), dict(sorted(after.items())),
                                   rtol=1e-3, atol=1e-4)  # fmt: skip
        mine = turns[name].statistics
        assert mine.loss == pytest.approx(counts.loss, rel=1e-4)
        assert (mine.n_words, mine.n_src_words) == (counts.n_words, counts.n_src_words)


def test_phases_make_up_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase lasts as long as what it is said to be: a clock that each of them moves."""
    clock = {"now": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    work = onmt.SUITE.works(CASES[0])["ours"]

    class Lasting(torch.autograd.Function):
        """1 in the forward pass, as much as said in the backward pass."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, seconds: float) -> torch.Tensor:
            ctx.seconds = seconds
            clock["now"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
            clock["now"] += ctx.seconds
            return gradient, None

    def last(module: Any, seconds: float) -> None:
        forward = module.forward

        def lasting(*args: Any, **kwargs: Any) -> Any:
            first, *others = forward(*args, **kwargs)
            return (Lasting.apply(first, seconds), *others)

        module.forward = lasting

    last(work.model.encoder, 10)
    last(work.model.decoder, 20)
    last(work.trainer.train_loss, 40)
    update = work.optim._optimizer.step
    monkeypatch.setattr(
        work.optim._optimizer, "step", lambda: (clock.update(now=clock["now"] + 80), update())
    )
    watch = updates.Stopwatch(work)
    for _ in range(updates.WARM_UP + 1):
        watch.update()
    assert {phase: watch.ms(phase) for phase in translation.PHASES} == {
        "encoder": 11e3, "decoder": 21e3, "generator+loss": 41e3, "optimizer": 80e3,
    }  # fmt: skip


def test_phases_out_of_order_are_no_measurement() -> None:
    work = translator.Work(CASES[2], ours=False, p=0.0)
    watch = updates.Stopwatch(work)
    work.optim.backward = lambda loss: None
    with pytest.raises(RuntimeError, match="an update went through"):
        watch.update()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "engine", "training"),
    [
        ("tiny NR+RH", None, True),
        ("tiny NR+RH with nothing dropped", "cpu", True),
        ("tiny NR+RH eval", None, False),
    ],
)
def test_no_speed_where_results_are_wrong(phase, engine, training, monkeypatch) -> None:
    """What our encoder gives is a little off, in one of the three comparisons alone."""
    works = updates.Suite.works

    def wrong(suite: Any, *given: Any) -> Any:
        turns = works(suite, *given)
        for name in ("dense", "ours"):
            encoder = turns[name].model.encoder
            encoder.register_forward_hook(
                lambda module, _, output: (
                    (output[0] * 1.01, *output[1:])
                    if (ops.forced(), module.training) == (engine, training)
                    else output
                )
            )
        return turns

    monkeypatch.setattr(updates.Suite, "works", wrong)
    rows = onmt.run(1, CASES)
    with pytest.raises(RedGateError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{phase}: the largest relative error is ")
    assert list(rows) == []  # nor of any other case


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "name"), [("torch", "onmt"), ("ours", "opennmt_sd")])
def test_memory_is_that_of_an_update(variant, name) -> None:
    suite = updates.Suite("onmt", CASES, translator.Work)
    suite.warm_up()
    update = suite.workload("tiny NR+RH", variant)
    model = update.__self__.model
    assert type(model.decoder).__module__.split(".")[0] == name
    before = model.generator.weight.detach().clone()
    update()
    assert not torch.equal(before, model.generator.weight)
