"""Runs a Hydra main in this process: its exit code and what it printed."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def drawn_curves() -> None:
    """For a test of ``curves.png``, which takes longer than a tiny training: it is really drawn."""


@pytest.fixture
def call(tmp_path: Path, monkeypatch, capsys, request) -> Callable[..., Done]:
    """``call(main, *overrides)``: as from a shell whose folder is ``tmp_path``."""
    from hydra.core.global_hydra import GlobalHydra

    from opennmt_sd.recipes import training

    monkeypatch.chdir(tmp_path)
    if "drawn_curves" not in request.fixturenames:
        monkeypatch.setattr(training, "plot_curves", lambda metrics, picture, **_: picture.touch())

    def run(main: Callable[[], None], *overrides: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["command", *overrides])
        GlobalHydra.instance().clear()
        code = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A corpus of 12 different words: 120 words to train on, so 12 batches an epoch."""
    folder = tmp_path / "text"
    folder.mkdir()
    for name, lines in (("train", 20), ("valid", 4), ("test", 4)):
        words = [f"w{i}" for i in random.Random(lines).choices(range(11), k=5 * lines)]
        rows = (" ".join(words[5 * k : 5 * k + 5]) for k in range(lines))
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def lm(call, text) -> Callable[..., Done]:
    """``lm(*overrides)``: the language model's command beside the corpus ``text``."""
    from opennmt_sd.cli.train_lm import main

    return lambda *overrides: call(main, *overrides)


@pytest.fixture
def tiny() -> tuple[str, ...]:
    """Overrides of a training of two updates on that corpus, in the folder ``runs/lm/run``."""
    return (
        "data.path=text", "data.batch_size=2", "data.unroll=5", "data.eval_batch_size=2",
        "model.embedding=8", "model.hidden=8", "sample.words=3", "trainer.accelerator=cpu",
        "trainer.max_updates=2", "name=run",
    )  # fmt: skip
