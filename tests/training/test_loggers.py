"""Figures go to a file and to trackers, which may fail."""

from __future__ import annotations

import builtins
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from opennmt_sd.training import bounded
from opennmt_sd.training.loggers import CSV, LoggerError, MLflow, TensorBoard, WandB, read_csv


def test_what_a_resumed_training_does_again_stands_once_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for _ in range(2):
        logger = CSV(path)
        logger.start(2, {})
        logger.log(2, {"train/loss": 1.5})
        logger.log(2, {"valid/loss": 2})
        logger.log(2, {"test/loss": 3})
    assert path.read_text() == ("update,train/loss,valid/loss,test/loss\n2,1.5,,\n2,,2,\n2,,,3\n")


def test_csv_takes_new_columns_and_forgets_what_is_void(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = CSV(path)
    logger.start(0, {})
    logger.log(1, {"a": 1.5})
    logger.log(2, {"b": 2})
    logger.log(3, {"a": 3})
    assert path.read_text() == "update,a,b\n1,1.5,\n2,,2\n3,3,\n"
    with open(path, "a") as file:
        file.write("4,0.")  # cut short, but a number
        file.write("x")  # and no longer one
    again = CSV(path)
    again.start(2, {})
    again.log(3, {"a": 4})
    assert read_csv(path) == [{"update": 1, "a": 1.5}, {"update": 2, "b": 2}, {"update": 3, "a": 4}]


@pytest.mark.parametrize(
    ("cls", "package"), [(TensorBoard, "tensorboard"), (WandB, "wandb"), (MLflow, "mlflow")]
)
def test_a_tracker_whose_package_is_missing_says_so(
    cls, package, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LoggerError) as error:
        cls(str(tmp_path))
    assert str(error.value) == (
        f"logger {package} needs the package {package}, which is not installed: pip install "
        f"{package}, or leave logger={package} out (metrics.csv is always written)"
    )


@pytest.mark.slow
def test_trackers_are_imported_when_they_are_made_only(run_python) -> None:
    """Nor is what the trainer is only given."""
    code = (
        "import sys, opennmt_sd.training.loop\n"
        "print([n for n in ('tensorboard', 'wandb', 'mlflow', 'hydra', 'omegaconf',"
        " 'lightning_fabric') if n in sys.modules])"
    )
    done = run_python("-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_tensorboard_gets_every_figure(run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    part = run("a", epochs=2)
    part.trainer.loggers.append(TensorBoard(str(tmp_path / "tb")))
    part.go()
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("valid/loss")]
    rows = [(row["update"], row["valid/loss"]) for row in part.rows() if "valid/loss" in row]
    assert shown == [(update, pytest.approx(loss)) for update, loss in rows]
    assert len(shown) == 2


class FakeRun:
    """What a run of W&B or MLflow is asked for."""

    def __init__(self, log: list, identity: str) -> None:
        self.calls, self.id = log, identity
        self.info = SimpleNamespace(run_id=identity)

    def log(self, figures, step):
        self.calls.append(("log", step, figures))

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))


def test_wandb_goes_on_in_its_run(tmp_path: Path, monkeypatch) -> None:
    calls: list = []

    def init(**options):
        calls.append(("init", options["id"], options["project"]))
        return FakeRun(calls, "r1")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=object()))
    for update, failed in ((0, True), (5, False)):
        logger = WandB(str(tmp_path), project="p")
        logger.start(update, {"lr": 1})
        logger.log(update + 1, {"train/loss": 2.0})
        logger.close(failed)
    assert calls == [
        ("init", None, "p"), ("log", 1, {"train/loss": 2.0}), ("finish", 1),
        ("init", "r1", "p"), ("log", 6, {"train/loss": 2.0}), ("finish", 0),
    ]  # fmt: skip


def test_mlflow_goes_on_in_its_run(tmp_path: Path, monkeypatch) -> None:
    calls: list = []

    def start_run(run_id, run_name):
        calls.append(("start", run_id))
        return FakeRun(calls, "r1")

    fake = SimpleNamespace(
        __spec__=object(),
        set_tracking_uri=lambda uri: calls.append(("uri", uri)),
        set_experiment=lambda name: calls.append(("experiment", name)),
        start_run=start_run,
        log_dict=lambda config, name: calls.append(("config", config)),
        log_metrics=lambda figures, step: calls.append(("log", step, figures)),
        end_run=lambda status: calls.append(("end", status)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for update in (0, 5):
        logger = MLflow(str(tmp_path), tracking_uri="u", experiment="e")
        logger.start(update, {"lr": 1})
        logger.log(update + 1, {"train/loss": 2.0})
        logger.close(False)
    begin = [("uri", "u"), ("experiment", "e")]
    log, end = {"train/loss": 2.0}, ("end", "FINISHED")
    assert calls == [
        *begin, ("start", None), ("config", {"lr": 1}), ("log", 1, log), end,
        *begin, ("start", "r1"), ("log", 6, log), end,
    ]  # fmt: skip


def test_loggers_end_however_the_training_ends(run) -> None:
    part = run("a")
    ends = []
    logger = SimpleNamespace(
        start=lambda update, config: None, log=lambda update, figures: None, close=ends.append
    )
    part.trainer.loggers.append(logger)
    part.task.step = lambda model, batch: builtins.print(1 / 0)
    with pytest.raises(ZeroDivisionError):
        part.go()
    assert ends == [True]


class Away:
    """A tracker whose server is away."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, []

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what == self.at:
            raise ConnectionError("server away")

    def start(self, update, config) -> None:
        self._do("start")

    def log(self, update, figures) -> None:
        self._do("log")

    def close(self, failed) -> None:
        self._do("close")


def test_a_tracker_that_fails_on_the_way_does_not_end_the_training(run, caplog) -> None:
    whole = run("whole", epochs=1)
    whole.go()
    part = run("a", epochs=1)
    tracker = Away("log")
    part.trainer.loggers.insert(0, tracker)
    part.go()
    assert tracker.calls == ["start", "log"]
    assert caplog.messages.count("Away fails and is left out from here on: server away") == 1
    assert part.rows() == whole.rows()


def test_a_tracker_that_cannot_start_is_told_before_the_first_update(run) -> None:
    part = run("a")
    part.trainer.loggers.append(Away("start"))
    with pytest.raises(LoggerError) as error:
        part.go()
    assert str(error.value) == "Away cannot start: server away. Leave it out, or mend it"
    assert part.task.seen == []


class Silent(Away):
    """A tracker whose server gives no answer."""

    def _do(self, what: str) -> None:
        self.calls.append((what, threading.current_thread().name))
        if what == self.at:
            threading.Event().wait(60)


@pytest.mark.parametrize("at", ["start", "log", "close"])
def test_a_tracker_that_does_not_answer_is_left_out(run, caplog, monkeypatch, at) -> None:
    monkeypatch.setattr(bounded, "LIMIT", 0.2)
    monkeypatch.setattr(bounded, "LAST_LIMIT", 0.2)
    whole = run("whole", epochs=1)
    whole.go()
    part = run("a", epochs=1)
    tracker = Silent(at)
    part.trainer.loggers.append(tracker)
    began = time.monotonic()
    part.go()
    assert time.monotonic() - began < 30
    assert part.rows() == whole.rows()
    texts = {
        "start": "Silent is left out: no answer within 0 s. Is its server away? metrics.csv has "
        "all of it",
        "log": "Silent fails and is left out from here on: no answer within 0 s",
        "close": "Silent cannot end its run: no answer within 0 s",
    }
    assert [m for m in caplog.messages if "Silent" in m] == [texts[at]]
    assert tracker.calls[-1][0] == at
    assert {thread for _, thread in tracker.calls} == {"Silent"}  # MLflow's run is of a thread
