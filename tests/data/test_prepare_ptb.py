"""scripts/prepare_ptb.py"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from opennmt_sd.lm.data import PTB

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ["OPENNMT_SD_CORPORA"]) / "ptb"


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare_ptb")


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")
def test_the_real_files(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(REAL)]) == 0
    assert capsys.readouterr().out == (
        f"{REAL / 'ptb.train.txt'}: 929,589 words with <eos>\n"
        f"{REAL / 'ptb.valid.txt'}: 73,760 words with <eos>\n"
        f"{REAL / 'ptb.test.txt'}: 82,430 words with <eos>\n"
        "10,000 different words. All as it should be.\n"
    )


def test_other_counts(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in PTB:
        (tmp_path / f"ptb.{split}.txt").write_text("a b\n" * 7, encoding="utf-8")
    assert script.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {tmp_path / 'ptb.train.txt'} has 7 lines and 14 words, PTB's has 42,068 and "
        "887,521\n"
    )


def test_no_folder(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == (
        f"error: there is no folder {tmp_path / 'x'}: check the path\n"
    )


def test_help_says_how_to_get_it(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    for lines, words in PTB.values():
        assert f"{lines:,}" in text
        assert f"{words:,}" in text
    for part in ("LDC99T42", "simple-examples", "downloads nothing"):
        assert part in text
