"""The language model's command beside a tiny corpus, and trainings that tests begin with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]  # gives how it has ended: ``code``, ``out``, ``err``


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
def lm(call, text) -> Command:
    """``lm(*overrides)``: the language model's command beside the corpus ``text``."""
    from opennmt_sd.cli.train_lm import main

    return lambda *overrides: call(main, *overrides)


@pytest.fixture
def lm_once(once, text) -> Command:
    """``lm_once(*overrides)``: as ``lm``, of a training that another test may have made."""
    from opennmt_sd.cli.train_lm import main

    return lambda *overrides: once(main, *overrides)


@pytest.fixture
def small() -> tuple[str, ...]:
    """Overrides of a training on that corpus, in the folder ``run``; its length is to be added."""
    return (
        "data.path=text", "data.batch_size=2", "data.unroll=5", "data.eval_batch_size=2",
        "model.embedding=8", "model.hidden=8", "sample.words=3", "trainer.accelerator=cpu",
        "trainer.log_every=1", "name=run",
    )  # fmt: skip


@pytest.fixture
def tiny(small: tuple[str, ...]) -> tuple[str, ...]:
    """Overrides of a training of two updates."""
    return (*small[:-1], "trainer.max_updates=2", "name=run")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of that training."""
    return tmp_path / "runs" / "lm" / "run"


@pytest.fixture
def trained(lm_once, small: tuple[str, ...]) -> Any:
    """That folder holds a training of one update."""
    return lm_once(*small, "trainer.max_updates=1")
