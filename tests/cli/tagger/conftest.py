"""The tagger's command beside a tiny corpus, and a training that tests begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]  # gives how it has ended: ``code``, ``out``, ``err``
TAGGED = """-DOCSTART- -X- O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
met VBD I-VP O
Mary NNP I-NP I-PER

BRUSSELS NNP I-NP I-LOC
1996-08-22 CD I-NP O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A tagger's corpus: 3 sentences, 10 words, 5 entities, three times the same; word vectors."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (folder / name).write_text(TAGGED)
    numbers = " ".join(["0.25"] * 6)
    (folder / "glove.txt").write_text(f"peter {numbers}\nparis {numbers}\n")
    return folder


@pytest.fixture
def tagger(call, data) -> Command:
    """``tagger(*overrides)``: the tagger's command beside the corpus ``data``."""
    from opennmt_sd.cli.train_tagger import main

    return lambda *overrides: call(main, *overrides)


@pytest.fixture
def small() -> tuple[str, ...]:
    """Overrides of a training on that corpus."""
    return (
        "data.path=data", "data.batch_size=1", "model.word_dim=6", "model.char_dim=4",
        "model.char_width=4", "model.hidden=8", "trainer.log_every=1", "trainer.accelerator=cpu",
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of one that is called ``run``."""
    return tmp_path / "runs" / "tagger" / "run"


@pytest.fixture
def trained(once, data, small: tuple[str, ...]) -> Any:
    """That folder holds a training of two updates."""
    from opennmt_sd.cli.train_tagger import main

    return once(main, *small, "name=run", "trainer.max_updates=2")
