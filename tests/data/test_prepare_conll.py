"""The script that checks a CoNLL-2003 folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ["OPENNMT_SD_CORPORA"])


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare_conll")


@pytest.fixture
def folder(tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in script.SIZES:
        (tmp_path / name).write_text("EU I-ORG\nrejects O\n\nPeter I-PER\n", encoding="utf-8")
    monkeypatch.setattr(script, "SIZES", dict.fromkeys(script.SIZES, (2, 3, 2)))
    return tmp_path


def test_counts_and_coverage(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = " ".join(["0.5"] * 100)
    (folder / "glove.txt").write_text(f"eu {numbers}\nzebra {numbers}\nPeter {numbers}\n")
    out = folder / "small.xz"
    assert (
        script.main([str(folder), "--glove", str(folder / "glove.txt"), "--subset", str(out)]) == 0
    )
    text = capsys.readouterr().out
    assert f"{folder / 'eng.testa'}: 2 sentences, 3 words" in text
    assert f"covers 33.3% of the words of {folder / 'eng.train'}" in text
    assert f"{out}: 2 vectors" in text
    assert list(script.glove.read(out, 100)) == ["eu", "Peter"]
    assert not list(folder.glob("*.partial"))


def test_all_faults_are_shown(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "eng.train").unlink()
    (folder / "eng.testa").write_text("a O\nb\n")
    (folder / "eng.testb").write_text("a O\n")
    assert script.main([str(folder)]) == 2
    error = capsys.readouterr().err
    for fault in (
        "eng.train is not there",
        "eng.testa:2: 1 column, but the first row (line 1) has 2",
        "eng.testb has 1 sentences, not 2",
        "eng.testb has 0 entities, not 2",
        "--help says what is needed",
    ):
        assert fault in error


def test_glove_of_another_size(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "glove.txt").write_text("eu 1 2 3\n")
    assert script.main([str(folder), "--glove", str(folder / "glove.txt")]) == 2
    assert "a vector of 3 numbers" in capsys.readouterr().err


def test_subset_needs_vectors(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["x", "--subset", "y.xz"])
    assert "--subset needs --glove" in capsys.readouterr().err


@pytest.mark.parametrize("link", [False, True])
def test_the_subset_is_not_written_over_an_input(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    vectors, out = folder / "glove.xz", folder / "out.xz"
    vectors.write_bytes(b"vectors")
    if link:
        out.hardlink_to(vectors)
    else:
        (folder / "x").mkdir()
        out = folder / "x" / ".." / "glove.xz"
    assert script.main([str(folder), "--glove", str(vectors), "--subset", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"error: {out} would be written over {vectors}: take another name\n"
    )
    assert vectors.read_bytes() == b"vectors"


@pytest.mark.skipif(not (DATA / "conll2003").exists(), reason=f"{DATA / 'conll2003'} is not there")
def test_the_real_data(script: ModuleType) -> None:
    assert script.main([str(DATA / "conll2003")]) == 0
