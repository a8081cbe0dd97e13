"""scripts/prepare_multi30k.py"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "multi30k"
SIZES = {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}


@pytest.fixture
def script() -> ModuleType:
    path = ROOT / "scripts" / "prepare_multi30k.py"
    spec = importlib.util.spec_from_file_location("prepare_multi30k", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with files of the right names and counts."""
    folder = tmp_path / "tok"
    folder.mkdir()
    for split, size in SIZES.items():
        for language in ("de", "en"):
            (folder / f"{split}.lc.norm.tok.{language}").write_bytes(
                b"ein  h\xc3\xbcgel .\n" * size
            )
    return folder


def test_it_writes_what_the_config_reads(script: ModuleType, source: Path, tmp_path: Path) -> None:
    assert script.main([str(source), "--out", str(tmp_path / "out")]) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    assert written == {
        f"{split}.{language}": "ein hügel .\n" * size
        for split, size in SIZES.items()
        for language in ("de", "en")
    }


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")
def test_it_takes_the_real_files(script: ModuleType, tmp_path: Path) -> None:
    assert script.main([str(REAL), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "train.de").read_text(encoding="utf-8")
    assert text.startswith("zwei junge weiße männer sind im freien in der nähe vieler büsche .\n")


def test_all_faults_are_shown_and_nothing_is_written(
    script: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "train.lc.norm.tok.de").write_text("zu kurz\n" * 28_999, encoding="utf-8")
    (source / "val.lc.norm.tok.en").unlink()
    (source / "val.lc.norm.tok.de").write_bytes(b"a\n \n" + b"a\n" * 1_012)
    (source / "test_2016_flickr.lc.norm.tok.de").write_bytes(b"\xff\n" * 1_000)
    assert script.main([str(source), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    for fault in (
        "train.lc.norm.tok.de has 28,999 lines, not 29,000",
        "val.lc.norm.tok.en is not there",
        "val.lc.norm.tok.de has an empty line, number 2",
        "test_2016_flickr.lc.norm.tok.de cannot be read as UTF-8 text",
        "--help says which files are needed",
    ):
        assert fault in error
    assert not (tmp_path / "out").exists()
