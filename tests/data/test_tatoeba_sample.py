"""The German-English sample that ships, and the script that made it."""

from __future__ import annotations

import lzma
import os
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from opennmt_sd.cli import stock
from opennmt_sd.data import TATOEBA

ROOT = Path(__file__).parents[2]
SOURCE = Path(os.environ["OPENNMT_SD_CORPORA"]) / "tatoeba-de-en" / "deu.txt.xz"
SIZES = {"train": 20_000, "valid": 500, "test": 500}
FILES = [f"{split}.{language}" for split in SIZES for language in ("de", "en")]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare_tatoeba_sample")


def lines_of(name: str) -> list[str]:
    return (TATOEBA / name).read_text(encoding="utf-8").split("\n")[:-1]


def bare(sentence: str) -> str:
    """A sentence without case, punctuation and blanks."""
    return "".join(char for char in sentence.casefold() if char.isalnum())


# ---- what ships ----


@pytest.mark.parametrize("name", FILES)
def test_counts(name: str) -> None:
    assert len(lines_of(name)) == SIZES[name.partition(".")[0]]


@pytest.mark.parametrize("language", ["de", "en"])
def test_no_sentence_occurs_twice(language: str) -> None:
    # Which is more than a disjoint split: no group of linked pairs gives two to the sample.
    sentences = [bare(s) for split in SIZES for s in lines_of(f"{split}.{language}")]
    assert len(set(sentences)) == sum(SIZES.values())


@pytest.mark.parametrize("name", FILES)
def test_sentences_are_clean(name: str) -> None:
    for sentence in lines_of(name):
        assert sentence == " ".join(sentence.split())
        assert sentence == unicodedata.normalize("NFC", sentence)
        assert 4 <= len(sentence.split()) <= 12
        assert sentence.isprintable()


def test_licence_is_beside_it() -> None:
    text = (TATOEBA / "LICENSE.md").read_text(encoding="utf-8")
    for part in ("CC BY 2.0 FR", "https://tatoeba.org", "manythings.org", "What was changed"):
        assert part in text


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in TATOEBA.iterdir()) < 3e6


def test_vocabularies_are_what_the_stock_command_builds(
    warm_python: list[str], tmp_path: Path
) -> None:
    try:
        command = stock.find("onmt_build_vocab")
    except stock.CommandError as error:
        pytest.skip(str(error))
    subprocess.run(
        [*warm_python, command, "-config", "conf/onmt/quickstart.yaml", "-n_sample", "-1",
         "-src_vocab", tmp_path / "vocab.de", "-tgt_vocab", tmp_path / "vocab.en",
         "-save_data", tmp_path / "samples"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    for name in ("vocab.de", "vocab.en"):
        assert (tmp_path / name).read_bytes() == (TATOEBA / name).read_bytes()


# ---- the script ----


@pytest.mark.skipif(not SOURCE.exists(), reason=f"{SOURCE} is not there")
def test_script_makes_the_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    assert script.main([str(SOURCE), str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (TATOEBA / name).read_bytes()


def test_groups_are_connected_through_other_pairs(script: ModuleType) -> None:
    a, b, c = ("Er ging.", "He went."), ("Er ging!", "He left."), ("Er verließ uns.", "He left")
    other = ("Sie kam.", "She came.")
    assert sorted(map(len, script.groups([a, other, b, c]))) == [1, 3]


def test_sample_takes_one_of_a_group(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SIZES", {"test": 1, "valid": 1, "train": 1})
    monkeypatch.setattr(script, "MIN_COUNT", 1)
    pairs = [
        ("Das ist ein Haus.", "This is a house."),
        ("Das ist ein Haus!", "That is a house."),
        ("Das ist ein Hund.", "This is a dog."),
        ("Das ist ein Hund.", "That is the dog."),
        ("Das ist eine Katze.", "This is a cat."),
        ("Nein.", "This is a cat."),  # too short
        ("Das ist ein ♥ Herz.", "This is a heart."),  # an odd character
    ]
    cut = script.sample(pairs)
    assert [len(part) for part in cut.values()] == [1, 1, 1]
    words = {german.split()[-1].strip(".!") for part in cut.values() for german, _ in part}
    assert words == {"Haus", "Hund", "Katze"}


def test_a_rare_word_keeps_a_pair_out(script: ModuleType) -> None:
    common = [(f"Das ist Haus {n}.", f"This is house {n}.") for n in range(10)]
    pairs = [("Das ist ein Haus.", "This is a house.")] * script.MIN_COUNT
    assert script.wanted([*pairs, *common]) == {pairs[0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Go.\tGeh.\nno tab here\n", "line 2: expected English TAB German, got 'no tab here'"),
        (b"Go.\tGeh \xff.\n", "cannot be read as UTF-8 text or .xz"),
        (b"Go.\tGeh.\n", "0 of the 1 pairs are fit for the sample, which needs 21,000"),
        (b"", "0 of the 0 pairs are fit for the sample, which needs 21,000"),
    ],
    ids=["no tab", "not UTF-8", "too few", "empty"],
)
def test_script_refuses(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    source = tmp_path / "deu.txt"
    source.write_bytes(content)
    assert script.main([str(source), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_script_refuses_a_truncated_xz(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "deu.txt.xz"
    source.write_bytes(lzma.compress(b"Go.\tGeh.\n" * 1000)[:-20])
    assert script.main([str(source), str(tmp_path / "out")]) == 2
    assert f"{source} cannot be read as UTF-8 text or .xz" in capsys.readouterr().err


def test_script_refuses_a_missing_source(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path / "deu.txt"), str(tmp_path)]) == 2
    assert "No such file" in capsys.readouterr().err
