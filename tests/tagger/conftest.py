"""A small tagger and the files it lives on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.tagger.corpora import Corpora
from opennmt_sd.tagger.model import Tagger, TaggerConfig
from opennmt_sd.tagger.task import TaggerTask
from opennmt_sd.tagger.trained import Trained

TRAIN = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
met VBD I-VP O
Mary NNP I-NP I-PER
Smith NNP I-NP I-PER
in IN I-PP O
New NNP I-NP I-LOC
York NNP I-NP I-LOC

BRUSSELS NNP I-NP I-LOC
1996-08-22 CD I-NP O

Paris NNP I-NP I-LOC
London NNP I-NP B-LOC
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "data.conll") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    path = tmp_path_factory.mktemp("corpora") / "data.conll"
    path.write_text(TRAIN)
    return Corpora.files(path, path, path)


SMALL = {"word_dim": 12, "char_dim": 5, "char_width": 8, "hidden": 10}


@pytest.fixture
def small() -> Callable[..., TaggerConfig]:
    return lambda **changes: TaggerConfig.from_dict({**SMALL, **changes})


@pytest.fixture(scope="session")
def make(corpora: Corpora) -> Callable[..., TaggerTask]:
    """A task on the small data; keywords beginning with ``task_`` are the task's."""

    def make(**changes: Any) -> TaggerTask:
        torch.manual_seed(5)
        ours = {k.removeprefix("task_"): changes.pop(k) for k in list(changes) if "task_" in k}
        vocabulary = corpora.vocabulary()
        model = Tagger(TaggerConfig.from_dict({**SMALL, **changes}), vocabulary)
        return TaggerTask(model, vocabulary, **vars(corpora), **{"batch_size": 2, **ours})

    return make


@pytest.fixture(scope="session")
def trained(make: Callable[..., TaggerTask]) -> Trained:
    """Trained until it knows the small data by heart; for reading only."""
    return by_heart(make(task_unknown=0.0))


@pytest.fixture(scope="session")
def trained_gru(make: Callable[..., TaggerTask]) -> Trained:
    """The same with a GRU."""
    return by_heart(make(task_unknown=0.0, cell="gru"))


def by_heart(task: TaggerTask) -> Trained:
    optimizer = torch.optim.Adam(task.model.parameters(), 0.03)
    for epoch in range(25):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.step(task.model, batch).loss.backward()
            optimizer.step()
    assert task.evaluate(task.model, "valid")["f1"] == 100
    return Trained(task.model.eval(), task.vocabulary)
