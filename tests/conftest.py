"""What tests of every part use."""

from __future__ import annotations

import gc
import logging
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern
from opennmt_sd.dropout import Keep

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
# Corpora that may not be shipped: ptb/, conll2003/, multi30k/, and the sources of the samples.
os.environ.setdefault("OPENNMT_SD_CORPORA", str(Path(__file__).parents[2] / "shared" / "data"))
WARM = Path(__file__).with_name("warm")
WARM_COMMAND = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Know ``timeout`` where pytest-timeout is not installed: nothing is cut off there."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds a test may take; read by pytest-timeout")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: at the end one would keep a worker, alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Leave what is there by now, modules and ten thousand tests, out of garbage collections.

    And let torch's loggers end at the root's handlers: pytest would come to each of them, for every
    phase of a test.
    """
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "torch":
            logger.propagate = True
            logger.handlers.clear()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _runner(python: list[str], tmp_path: Path) -> RunPython:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*python, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Run Python in a fresh process and a foreign directory; keywords set its environment."""
    return _runner([sys.executable], tmp_path)


@contextmanager
def _warm_server() -> Iterator[list[str]]:
    """Start ``warm/server.py``, and give the command that is served by it."""
    with tempfile.TemporaryDirectory(prefix="warm") as folder:  # short, as a socket's name must be
        place, python = f"{folder}/socket", Path(folder, "python")
        command = [sys.executable, "-IS", str(WARM / "client.py"), place, str(python)]
        python.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        python.chmod(0o755)
        server = subprocess.Popen(
            [sys.executable, str(WARM / "server.py"), place],
            env={**os.environ, "OPENNMT_SD_AUTOLOAD": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield command
        server.communicate(timeout=60)  # closes its standard input, and so ends it


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Give all workers one server, whose imports take seconds."""
    if WARM_COMMAND not in node.config.stash and sys.platform.startswith("linux"):
        server = _warm_server()
        node.config.stash[WARM_COMMAND] = server.__enter__()
        node.config.add_cleanup(lambda: server.__exit__(None, None, None))
    node.workerinput["warm"] = node.config.stash.get(WARM_COMMAND, None)


@pytest.fixture(scope="session")
def warm_python(pytestconfig: pytest.Config) -> Iterator[list[str]]:
    """A command that does what Python does, without the seconds that torch takes to be imported.

    For tests of what a process does, not of how it starts: each is a fork of one that has imported
    torch and the like (``warm/server.py``), and nothing of ours. It takes no options.
    """
    shared = getattr(pytestconfig, "workerinput", {}).get("warm")
    if not sys.platform.startswith("linux"):
        yield [sys.executable]
        return
    with nullcontext(shared) if shared else _warm_server() as command:
        subprocess.run([*command, "-c", ""], check=True)  # what is slow is not in a test's time
        yield command


@pytest.fixture
def run_warm(warm_python: list[str], tmp_path: Path) -> RunPython:
    """Run Python in a process of its own that is warm, in a foreign directory."""
    return _runner(warm_python, tmp_path)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a translator needs: train, valid and test texts and the vocabularies.

    Sources have 1 to 14 words, of 20.
    """
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    words = [f"w{i}" for i in range(20)]
    for split, size in (("train", 60), ("valid", 8), ("test", 5)):
        lines = [draw.choices(words, k=draw.randint(1, 14)) for _ in range(size)]
        (folder / f"{split}.src").write_text("".join(" ".join(s) + "\n" for s in lines))
        targets = [s[: -1 - len(s) // 3 : -1] for s in lines]  # shorter than the sources
        (folder / f"{split}.tgt").write_text("".join(" ".join(s) + "\n" for s in targets))
    for side in ("src", "tgt"):
        (folder / f"vocab.{side}").write_text("".join(f"{word}\n" for word in words))
    return folder


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """``with small_files(limit)``: no file of this process grows beyond so many bytes.

    As on a disk that is full. A test holds it around the code under test only: pytest's own
    output may be a file that is longer already, and it is written before fixtures end.
    """

    @contextmanager
    def limited(limit: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that runs in this process sets up logging for all of it, as Hydra and alembic do.

    Its handlers write to a stream that the test closes, and loggers may be disabled: what other
    tests log, and look for, would depend on their order.
    """
    root, loggers = logging.getLogger(), logging.Logger.manager.loggerDict
    level, handlers, disable = root.level, root.handlers[:], root.manager.disable
    disabled = {name for name, x in loggers.items() if getattr(x, "disabled", False)}
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.disable(disable)
    for name, logger in loggers.items():
        if isinstance(logger, logging.Logger):
            logger.disabled = name in disabled


@pytest.fixture
def matmul_precision() -> Iterator[Callable[[str], None]]:
    """Set torch's switch for products of float32; afterwards it is as it was."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[float, list[Keep]]:
    """Every draw since the test began, by its rate, so that a test can apply the same by hand."""
    drawn: dict[float, list[Keep]] = defaultdict(list)

    def recorded(real: Callable[..., Keep]) -> Callable[..., Keep]:
        def draw(pattern: DropoutPattern, *size: int, **kwargs: object) -> Keep:
            keep = real(pattern, *size, **kwargs)
            drawn[pattern.p].append(keep)
            return keep

        return draw

    for name in ("draw", "draw_mask"):
        monkeypatch.setattr(DropoutPattern, name, recorded(getattr(DropoutPattern, name)))
    return drawn


class FakeCard:
    """The CPU as a device on which two ways are timed: its clock says what a test wants.

    Attributes:
        dense, ours: milliseconds that each way takes.
        captured: whether a graph is being captured.
        marks: how often the clock was looked at.
        cleaned: how often memory was given back.
    """

    def __init__(self) -> None:
        self.dense, self.ours, self.captured, self.cleaned = 2.0, 1.0, False, 0
        self._numbers = count()
        self.marks = 0

    def name(self, device: object) -> str:
        return "a card"

    def mark(self) -> int:
        self.marks += 1
        return next(self._numbers)

    def between(self, start: int, end: int) -> float:
        assert end == start + 1
        return self.ours if start // 2 % 2 else self.dense

    def captures(self) -> bool:
        return self.captured

    def waiting_allowed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def clean_up(self) -> None:
        self.cleaned += 1


@pytest.fixture
def fake_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCard]:
    """A fake card, on which nothing has been measured; its engine is the dense one."""
    import torch

    from opennmt_sd.ops import engines
    from opennmt_sd.ops.calibration import cache_file, choices, devices

    card = FakeCard()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(devices.DEVICES, "cpu", card)
    monkeypatch.setattr(engines, "_engine_for", lambda *_: engines.forced() or "dense")
    cache_file._warn.cache_clear()
    choices.forget()
    yield card
    choices.forget()
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def no_choices() -> Iterator[None]:
    """Nothing has been chosen by measurement, and what a test takes is forgotten again."""
    from opennmt_sd.ops.calibration import choices

    choices.forget()
    yield
    choices.forget()
