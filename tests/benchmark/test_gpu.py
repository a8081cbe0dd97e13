"""``device=cuda`` without a GPU: a clock of events that are made up, on tensors of the CPU."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern, ops
from opennmt_sd.benchmark import (
    gpu,
    gru,
    lm,
    lstm,
    machine,
    memory,
    ops_gpu,
    recurrent,
    tagger,
)
from opennmt_sd.benchmark.measure import Events, alternate
from opennmt_sd.benchmark.row import RedGateError, Row
from opennmt_sd.benchmark.target import PRECISIONS, Target, allow_tf32, tf32
from opennmt_sd.ops.autocast import autocast_dtype


class FakeCuda:
    """A device whose time goes on when it is worked on, and whose events tell it."""

    def __init__(self) -> None:
        self.now, self.waits, self.device_count = 0.0, 0, 1

    def __call__(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(synchronize=lambda: None)
        event.record = lambda stream: setattr(event, "at", self.now)
        event.elapsed_time = lambda other: other.at - event.at
        return event

    def synchronize(self, device: torch.device) -> None:
        self.waits += 1

    def work(self, ms: float) -> None:
        self.now += ms


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "Event", fake)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 2**21)
    return fake


class OnCPU(Target):
    """What would be launched, on the CPU: every choice is the GPU's but the device."""

    gpu = True  # type: ignore[assignment]


def test_the_median_of_events_counts(cuda: FakeCuda) -> None:
    """Work of 4 ms is timed two calls a turn, so that a turn takes some 10; what is long, one."""
    calls = {"short": 0, "long": 0}

    def call(name: str, ms: float) -> None:
        calls[name] += 1
        cuda.work(ms)

    variants = {"short": lambda: call("short", 4.0), "long": lambda: call("long", 30.0)}
    assert alternate(variants, 3, Events(torch.device("cuda"))) == {"short": 4.0, "long": 30.0}
    assert calls == {"short": 1 + 2 + 3 * 2, "long": 2 + 3}
    assert cuda.waits == 2 * (2 + 3), "before each turn"


@pytest.mark.parametrize(("ms", "calls"), [(0.0, 100), (0.05, 100), (1.0, 10), (6.0, 1), (1e3, 1)])
def test_calls_of_a_turn(ms: float, calls: int) -> None:
    assert Events(torch.device("cuda")).calls(ms) == calls


def check(rows: list[Row], loops: set[str]) -> None:
    for row in rows:
        assert (row.loop_ms is not None) == (
            row.case in loops and row.p > 0 and row.phase != "eval"
        )
        assert (row.as_json().get("speedup_vs_loop") is None) == (row.loop_ms is None)
        assert 0 <= row.max_rel_err < 1e-4


@pytest.fixture
def _ticking(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is 1 ms later than the one before, whatever is done; a turn is one call."""
    monkeypatch.setattr(Events, "mark", lambda self: cuda.work(1.0) or cuda.now)
    monkeypatch.setattr(Events, "ms", lambda self, begin, end: end - begin)
    monkeypatch.setattr(Events, "MOST", 1)


ticking = pytest.mark.usefixtures("_ticking")

CASES = [
    ops_gpu.Case("linear", 12, 20, 0.5),
    ops_gpu.Case("linear", 12, 20, 0.5, fixed=True),
    ops_gpu.Case("nll", 12, 30, 0.5, batch=3),
    ops_gpu.Case("lstm", 12, 8, 0.5),
    ops_gpu.Case("gru", 12, 8, 0.5, batch=3),
]


@ticking
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ops(case: ops_gpu.Case) -> None:
    rows = list(ops_gpu.run(1, [case], OnCPU()))
    assert [(row.case, row.phase) for row in rows] == [(case.name, "FP"), (case.name, "BP+WG")]
    check(rows, {"8 LSTM RH", "8 GRU RH B3"})


def test_names_and_ideals_of_ops() -> None:
    assert {case.name: round(case.ideal, 2) for case in CASES} == {
        "12->20": 2.0, "12->20 Case IV": 2.0, "12->30 loss B3": 2.0, "8 LSTM RH": 1.25,
        "8 GRU RH B3": 1.25,
    }  # fmt: skip
    assert len({case.name for case in ops_gpu.CASES}) == len(ops_gpu.CASES)


def test_torchs_op_is_the_same_where_nothing_is_dropped() -> None:
    for case in CASES:
        work = ops_gpu.Work(ops_gpu.replace(case, p=0.0), OnCPU(), None)
        torch.testing.assert_close(work.stock(), work.ours())
        got, want = (work.backward(call(), work.leaves(call)) for call in (work.stock, work.ours))
        order = [0, 1, 3, 2] if case.recurrent else [0, 1, 2]  # a layer's: weights, then biases
        for mine, its in zip(got, (want[n] for n in order)):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@ticking
@pytest.mark.parametrize("op", ["masked_linear", "projected_nll", "lstm_layer", "gru_layer"])
def test_a_wrong_op_has_no_speed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(ops, op)

    def wrong(*given: Any, **more: Any) -> Any:
        out = right(*given, **more)
        if ops.forced() == "naive":
            return out
        return (out[0] * 1.01, *out[1:]) if isinstance(out, tuple) else out * 1.01

    monkeypatch.setattr(ops, op, wrong)
    with pytest.raises(RedGateError, match="no speed is reported"):
        list(ops_gpu.run(1, CASES, OnCPU()))


@pytest.mark.slow
@ticking
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_recurrent_layer(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = recurrent.Case(lstm.CELL, "small", 24, 16, 0.5, True, 3, (4, 4))
    monkeypatch.setattr(lstm, "CASES", [case])
    seen = []
    forward = lstm.StructuredLSTM.forward
    monkeypatch.setattr(
        lstm.StructuredLSTM, "forward",
        lambda self, x: seen.append((ops.forced(), x.dtype)) or forward(self, x),
    )  # fmt: skip
    rows = list(lstm.run(1, [case], OnCPU(precision=precision)))
    assert [(row.phase, row.loop_ms is not None) for row in rows] == [
        ("step", True), ("step", False), ("eval", False),
    ]  # fmt: skip
    assert all(row.max_rel_err <= (PRECISIONS[precision].tolerance or 1e-4) for row in rows)
    assert set(seen) == {
        (None, PRECISIONS[precision].dtype),
        ("dense", PRECISIONS[precision].dtype),
        ("naive", torch.float64),
    }
    assert rows[0].peak_mb == rows[0].torch_peak_mb == 0.0, "what torch counts, less what was there"


@ticking
def test_the_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    case = lm.Case("tiny NR+RH+FC", 24, 0.5, True, 0.05, 5.0, vocabulary=50, T=6, B=4)
    monkeypatch.setattr(lm, "CASES", [case])
    seen = []
    forward = lm.LanguageModel.forward
    monkeypatch.setattr(
        lm.LanguageModel, "forward",
        lambda *given, **more: seen.append(ops.forced()) or forward(*given, **more),
    )  # fmt: skip
    (row,) = lm.run(1, [case], OnCPU())
    assert row.loop_ms is not None
    assert row.draw_ms is None, "it is timed on the CPU, where a GPU's sets are not drawn"
    assert set(seen) == {None, "dense", "naive"}


@pytest.mark.slow
@ticking
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_tagger(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"hidden": 8, "word_dim": 6, "batches": 2, "sentences": 3}
    cases = [tagger.Case("NR+RH", 0.5, True, **tiny), tagger.Case("none", 0.0, False, **tiny)]
    monkeypatch.setattr(tagger, "CASES", cases)
    seen = []
    forward = tagger.Tagger.forward
    monkeypatch.setattr(
        tagger.Tagger, "forward",
        lambda *given: seen.append((ops.forced(), autocast_dtype("cpu") is not None))
        or forward(*given),
    )  # fmt: skip
    rows = tagger.run(1, cases, OnCPU(precision=precision))
    found = {(row.case, row.phase): row.loop_ms is not None for row in rows}
    mixed = precision == "bfloat16"
    assert set(seen) == {(None, mixed), ("dense", mixed), ("naive", False)}
    assert found == {("NR+RH", "step"): True, ("none", "step"): False, ("none", "eval"): False}


@pytest.mark.usefixtures("cuda")
def test_memory_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**20 * (1 + len(ran)))
    monkeypatch.setattr(lstm, "workload", lambda *_: lambda: ran.append("step"))
    assert memory.peak_mb("lstm", "650 NR", "ours", OnCPU()) == memory.RUNS


def test_tf32_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tf32()
    device = torch.cuda.device
    monkeypatch.setattr(torch.cuda, "device", lambda _: device(-1))
    for precision in ("float32", "tf32"):
        allow_tf32(False, True)
        with OnCPU(precision=precision).ready():
            assert tf32() == ((precision == "tf32"),) * 2
        assert tf32() == (False, True)
    allow_tf32(*before)


CARD = SimpleNamespace(
    name="NVIDIA H100", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132,
    uuid="12-34",
)  # fmt: skip
SAYS = "570.10, 1200 MHz, 1980 MHz, 2619 MHz, 700.00 W\n"


def test_the_header_names_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: CARD)
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        if any("--id" in word for word in command):
            raise subprocess.CalledProcessError(6, command)
        return SimpleNamespace(stdout=SAYS)

    monkeypatch.setattr(subprocess, "run", run)
    facts = machine.describe(OnCPU(torch.device("cpu")))
    assert facts["device"] == "NVIDIA H100, sm_90, 80 GiB, 132 units"
    assert facts["driver"] == (
        "driver 570.10, at 1200 MHz now, 1980 MHz at most, memory 2619 MHz, power limit 700.00 W"
    )
    assert facts["torch"].startswith(f"{torch.__version__}, CUDA ")
    assert facts["dtype"] == f"float32, TF32 {gpu.flags()}"
    assert "--id=GPU-12-34" in asked[0]
    assert {"engine", "threads", "opennmt_sd", "python"} <= facts.keys()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert gpu.describe(OnCPU())["driver"] == "unknown: nvidia-smi does not say"


@ticking
def test_ceilings_are_the_cards() -> None:
    ceilings = machine.Ceilings(
        gpu.peak_gflops(OnCPU(), side=64), gpu.bandwidth_gbs(OnCPU(), megabytes=1)
    )
    assert ceilings.gflops == pytest.approx(2 * 64**3 / 1.0 / 1e6)  # a mark takes 1 ms
    assert ceilings.gbs == pytest.approx(2**20 / 1.0 / 1e6)


@pytest.mark.slow
@pytest.mark.parametrize("suite", [lstm, gru, lm], ids=["lstm", "gru", "lm"])
def test_cases_of_a_gpu_are_found_by_their_names(suite: Any) -> None:
    """Case IV is in them: one set for all steps, at every place."""
    names = [case.name for case in (*suite.CASES, *suite.GPU_CASES)]
    assert len(set(names)) == len(names)
    for case in suite.GPU_CASES:
        model = suite.workload(case.name, "ours").__self__.model
        times = {
            pattern.time
            for module in model.modules()
            for name in ("input_dropout", "dropout", "recurrent_dropout")
            if isinstance(pattern := getattr(module, name, None), DropoutPattern) and pattern.active
        }
        assert times == {"fixed" if case.name.endswith("IV") else "random"}
