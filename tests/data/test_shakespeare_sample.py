"""The Shakespeare sample that ships, and the script that made it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from opennmt_sd.data import SHAKESPEARE

ROOT = Path(__file__).parents[2]
SOURCE = Path(os.environ["OPENNMT_SD_CORPORA"]) / "samples" / "shakespeare.txt"
COUNTS = {"train": (29_625, 232_788), "valid": (1_765, 14_066), "test": (1_387, 10_606)}


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare_shakespeare_sample")


def lines_of(split: str) -> list[list[str]]:
    text = (SHAKESPEARE / f"{split}.txt").read_text(encoding="utf-8")
    return [line.split(" ") for line in text.split("\n")[:-1]]


# ---- what ships ----


@pytest.mark.parametrize("split", COUNTS)
def test_counts(split: str) -> None:
    lines = lines_of(split)
    assert (len(lines), sum(map(len, lines))) == COUNTS[split]


def test_words() -> None:
    counts = Counter(word for line in lines_of("train") for word in line)
    assert min(counts.values()) == 3
    for split in ("valid", "test"):
        assert {word for line in lines_of(split) for word in line} <= counts.keys()
    for word in counts:
        assert word == word.lower()
        assert word.isascii()
        assert word.isprintable()


def test_licence_is_beside_it() -> None:
    text = (SHAKESPEARE / "LICENSE.md").read_text(encoding="utf-8")
    for part in ("public domain", "William Shakespeare", "What was changed"):
        assert part in text


# ---- the script ----


@pytest.mark.skipif(not SOURCE.exists(), reason=f"{SOURCE} is not there")
def test_script_makes_the_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    assert script.main([str(SOURCE), str(tmp_path)]) == 0
    for split in COUNTS:
        name = f"{split}.txt"
        assert (tmp_path / name).read_bytes() == (SHAKESPEARE / name).read_bytes()


def test_tokens(script: ModuleType) -> None:
    text = "We'll o'er--thou'rt 'Tis know't, lov'd 3 KING'S; 'em! ne'er-do"
    assert " ".join(script.TOKEN.findall(text.lower())) == (
        "we 'll o'er -- thou 'rt ' tis know 't , lov 'd 3 king 's ; 'em ! ne'er - do"
    )


def test_blocks_of_speeches(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "BLOCK", 2)
    monkeypatch.setattr(script, "MIN_COUNT", 0)
    source = tmp_path / "plays.txt"
    source.write_text("".join(f"A:\nsay {n}\n\n\n" for n in range(42)), encoding="utf-8")
    parts = script.split(script.speeches(source))
    said = {name: [int(line[1]) for line in lines if line[0] == "say"]
            for name, lines in parts.items()}  # fmt: skip
    assert said["valid"] == [18, 19]
    assert said["test"] == [38, 39]
    assert said["train"] == [*range(18), *range(20, 38), 40, 41]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A:\nsay\xff\n", "cannot be read as UTF-8 text"),
        (b"A:\nsay\n\nB:\nno\n", "the source has 2 speeches (separated by empty lines), the sample "
         "needs 951 at least; SOURCE must be the whole file"),
    ],
    ids=["not UTF-8", "too few"],
)  # fmt: skip
def test_script_refuses(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    source = tmp_path / "plays.txt"
    source.write_bytes(content)
    assert script.main([str(source), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
