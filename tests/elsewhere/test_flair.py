"""flair's SequenceTagger, converted: trained by flair, saved by flair, loaded without us."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from opennmt_sd import StructuredLSTM, conversion_report

flair: Any = pytest.importorskip(
    "flair", reason="flair is not installed; scripts/check_elsewhere.sh tries it"
)
pytestmark = pytest.mark.filterwarnings("ignore")


def tags(tagger: Any, sentences: Any) -> list[str]:
    for sentence in sentences:
        sentence.remove_labels("ner")
    tagger.predict(sentences)
    return [str(sentence.get_labels("ner")) for sentence in sentences]


def test_it_trains_and_is_saved_as_flairs(example: Any, tmp_path: Any) -> None:
    recipe = example("flair_tagger")
    flair.device = torch.device("cpu")
    data = recipe.corpus(limit=64)
    tagger = recipe.converted(recipe.tagger(data, hidden=32))
    assert type(tagger.rnn) is StructuredLSTM
    assert conversion_report(tagger).converted == ["rnn"]
    losses = [recipe.epoch(tagger, data) for _ in range(3)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]

    tagger.save(tmp_path / "tagger.pt")
    plain = recipe.SequenceTagger.load(tmp_path / "tagger.pt")
    assert type(plain.rnn) is torch.nn.LSTM
    sentences = [data.dev[i] for i in range(8)]
    assert tags(tagger, sentences) == tags(plain, sentences)
