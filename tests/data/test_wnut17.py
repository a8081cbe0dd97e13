"""The WNUT-17 sample that ships."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opennmt_sd.data import WNUT17
from opennmt_sd.tagger.conll import read
from opennmt_sd.tagger.schemes import entities

SOURCE = Path(os.environ["OPENNMT_SD_CORPORA"]) / "samples"
COUNTS = {
    "train": (3_394, 62_730, 1_975),
    "dev": (1_009, 15_733, 836),
    "test": (1_287, 23_394, 1_079),
}
TYPES = {"corporation", "creative-work", "group", "location", "person", "product"}


@pytest.mark.parametrize("split", COUNTS)
def test_counts_and_types(split: str) -> None:
    corpus = read(WNUT17 / f"{split}.conll")
    found = [entity for s in corpus.sentences for entity in entities(s.tags)]
    assert (len(corpus.sentences), corpus.words, len(found)) == COUNTS[split]
    assert {entity.type for entity in found} == TYPES
    assert corpus.scheme == "iob2"


@pytest.mark.parametrize("split", COUNTS)
def test_bytes_are_the_sources(split: str) -> None:
    source = SOURCE / f"wnut17.{split}.conll"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    assert (WNUT17 / f"{split}.conll").read_bytes() == source.read_bytes()


def test_licence_is_beside_it() -> None:
    text = (WNUT17 / "LICENSE.md").read_text(encoding="utf-8")
    for part in (
        "CC BY 4.0",
        "Derczynski",
        "aclanthology.org/W17-4418",
        "What was changed",
    ):
        assert part in text
