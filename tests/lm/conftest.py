"""A small corpus, and what several tests of the language model use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from opennmt_sd.lm import Corpus

PTB = Path(os.environ["OPENNMT_SD_CORPORA"]) / "ptb"

LINES = {
    "train": ["the cat sat on the mat", "the dog sat", "a <unk> cat ran on"] * 12,
    "valid": ["the dog ran", "a cat sat on a mat", "the mat"] * 3,
    "test": ["a dog sat on the cat", "the cat ran"] * 3,
}


WriteTexts = Callable[..., Path]


@pytest.fixture
def write_texts(tmp_path: Path) -> WriteTexts:
    """Writes three texts into a folder; a keyword replaces the lines of one."""

    def write(name: str = "{}.txt", **lines: list[str]) -> Path:
        folder = tmp_path / "texts"
        folder.mkdir(exist_ok=True)
        for split, default in LINES.items():
            text = "".join(line + "\n" for line in lines.get(split, default))
            (folder / name.format(split)).write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def folder(write_texts: WriteTexts) -> Path:
    return write_texts()


@pytest.fixture
def ptb() -> Path:
    if not PTB.exists():
        pytest.skip(f"{PTB} is not there")
    return PTB


@pytest.fixture
def corpus(folder: Path) -> Corpus:
    return Corpus.load(folder)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1)
