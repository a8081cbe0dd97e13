"""The scripts that prepare parallel text: prepare_multi30k, prepare_iwslt15, prepare_iwslt14."""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

yaml = pytest.importorskip("yaml", reason="OpenNMT-py is not installed")

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ["OPENNMT_SD_CORPORA"])
SMALL = 4  # sentence pairs of every split in these tests


@dataclass(frozen=True)
class Case:
    """A script as its users know it: files, counts, and the recipe that reads what it writes."""

    script: str
    bitext: str
    recipe: str
    languages: tuple[str, str]
    sizes: dict[str, int]
    infix: str = ""
    line: str = "ein  h\u00fcgel ."


CASES = [
    Case("prepare_multi30k", "MULTI30K", "multi30k.yaml", ("de", "en"),
         {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}, infix=".lc.norm.tok"),
    Case("prepare_iwslt15", "IWSLT15", "iwslt15_en_vi.yaml", ("en", "vi"),
         {"train": 133_166, "tst2012": 1_553, "tst2013": 1_268}),
    Case("prepare_iwslt14", "IWSLT14", "iwslt14_de_en.yaml", ("de", "en"),
         {"train": 160_239, "valid": 7_283, "test": 6_750}, line="ein  h\u00fc@@ gel ."),
]  # fmt: skip
MULTI30K, IWSLT15, IWSLT14 = CASES
any_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.script)

Load = Callable[[Case], ModuleType]
Fill = Callable[[Case], Path]


@pytest.fixture
def load(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Load:
    """A script that expects small files, of the right names."""

    def load(case: Case) -> ModuleType:
        script = load_script(case.script)
        bitext = getattr(script, case.bitext)
        assert dict(bitext.sizes) == case.sizes
        small = replace(bitext, sizes=dict.fromkeys(bitext.sizes, SMALL))
        monkeypatch.setattr(script, case.bitext, small)
        return script

    return load


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """A folder with files of the right names and small counts."""

    def fill(case: Case) -> Path:
        folder = tmp_path / "source"
        folder.mkdir()
        for split in case.sizes:
            for language in case.languages:
                write(folder / f"{split}{case.infix}.{language}", [case.line] * SMALL)
        return folder

    return fill


def write(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode())


@any_case
def test_it_writes_what_it_read(load: Load, fill: Fill, tmp_path: Path, case: Case) -> None:
    assert load(case).main([str(fill(case)), "--out", str(tmp_path / "out")]) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    clean = " ".join(case.line.split())
    assert written == {
        f"{split}.{language}": f"{clean}\n" * SMALL
        for split in case.sizes
        for language in case.languages
    }


@any_case
def test_the_recipe_reads_what_is_written(
    load: Load,
    fill: Fill,
    tmp_path: Path,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = fill(case)
    monkeypatch.chdir(tmp_path)
    assert load(case).main([str(source)]) == 0
    recipe = yaml.safe_load((ROOT / "conf" / "onmt" / case.recipe).read_text(encoding="utf-8"))
    for corpus in recipe["data"].values():
        for side in ("path_src", "path_tgt"):
            assert (tmp_path / corpus[side]).is_file()


@any_case
def test_help_names_files_and_counts(
    load: Load, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load(case).main(["--help"])
    text = capsys.readouterr().out
    for split, size in case.sizes.items():
        assert f"{split}{case.infix}.{{{','.join(case.languages)}}}" in text
        assert f"{size:,}" in text
    assert f"scripts/{case.script}.py SOURCE" in text


@any_case
def test_all_faults_are_shown_and_nothing_is_written(
    load: Load, fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    source = fill(case)
    first, second = case.languages
    train, valid, test = (f"{split}{case.infix}" for split in case.sizes)
    write(source / f"{train}.{first}", [case.line] * (SMALL - 1))
    (source / f"{valid}.{second}").unlink()
    write(source / f"{valid}.{first}", [case.line, " ", case.line, case.line])
    (source / f"{test}.{first}").write_bytes(b"\xff\n" * SMALL)
    assert load(case).main([str(source), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    for fault in (
        f"{source / train}.{first} has 3 lines and {source / train}.{second} 4: line by line they "
        "must be translations of each other\n",
        f"{source / valid}.{second} is not there\n",
        f"{source / valid}.{first} has an empty line, number 2\n",
        f"{source / test}.{first} cannot be read as UTF-8 text: 'utf-8' codec can't decode",
        "--help says which files are needed, and from where\n",
    ):
        assert fault in error
    assert not (tmp_path / "out").exists()


@any_case
def test_another_count(
    load: Load, fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    source = fill(case)
    paths = [source / f"train{case.infix}.{language}" for language in case.languages]
    for path in paths:
        write(path, [case.line] * 1_234)
    assert load(case).main([str(source), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"error: {paths[0]} and {paths[1]} have 1,234 sentence pairs, not 4\n"
        "--help says which files are needed, and from where\n"
    )


def test_a_file_cannot_be_written(
    load: Load,
    fill: Fill,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    small_files: Callable[[int], object],
) -> None:
    source = fill(MULTI30K)
    script = load(MULTI30K)
    with small_files(20):  # type: ignore[attr-defined]
        assert script.main([str(source), "--out", str(tmp_path / "out")]) == 2
    assert "File too large" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.de"))


def test_out_is_not_the_source(load: Load, fill: Fill, capsys: pytest.CaptureFixture[str]) -> None:
    source = fill(IWSLT14)
    before = (source / "train.de").read_bytes()
    assert load(IWSLT14).main([str(source), "--out", f"{source}/."]) == 2
    assert capsys.readouterr().err == (
        f"error: --out {source} is SOURCE itself: give another folder\n"
    )
    assert (source / "train.de").read_bytes() == before


def test_iwslt14_without_bpe(load: Load, fill: Fill, capsys: pytest.CaptureFixture[str]) -> None:
    source = fill(IWSLT14)
    write(source / "valid.en", ["a hill ."] * SMALL)
    assert load(IWSLT14).main([str(source)]) == 2
    assert (
        f"{source / 'valid.en'} has no subword (@@): BPE has not been applied to it\n"
        in capsys.readouterr().err
    )


def test_iwslt15_leaves_out_pairs_with_an_empty_side(
    load: Load, fill: Fill, tmp_path: Path
) -> None:
    source = fill(IWSLT15)
    write(source / "train.en", ["a", "", "b", "c", "d", "e"])
    write(source / "train.vi", ["1", "2", "3", " ", "4", "5"])
    assert load(IWSLT15).main([str(source), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "train.en").read_text() == "a\nb\nd\ne\n"
    assert (tmp_path / "out" / "train.vi").read_text() == "1\n3\n4\n5\n"


def test_xz(load: Load, fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = fill(IWSLT15)
    script = load(IWSLT15)
    plain = source / "train.en"
    packed = lzma.compress(plain.read_bytes())
    plain.unlink()
    (source / "train.en.xz").write_bytes(packed)
    assert script.main([str(source), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "train.en").read_text(encoding="utf-8") == "ein hügel .\n" * SMALL
    (source / "train.en.xz").write_bytes(packed[:-9])
    assert script.main([str(source), "--out", str(tmp_path / "again")]) == 2
    assert f"{plain} cannot be read as UTF-8 text: Compressed data ended" in capsys.readouterr().err


# ---- the real files ----


@pytest.mark.parametrize(
    ("case", "folder", "first"),
    [
        (MULTI30K, "multi30k", "zwei junge weiße männer sind im freien in der nähe vieler büsche"),
        (IWSLT15, "iwslt15-en-vi", "And so , the way I &apos;m thinking of texting these days is"),
    ],
    ids=["multi30k", "iwslt15"],
)
def test_it_takes_the_real_files(
    load_script: Callable[[str], ModuleType], tmp_path: Path, case: Case, folder: str, first: str
) -> None:
    source = SHARED / folder
    if not source.exists():
        pytest.skip(f"{source} is not there")
    assert load_script(case.script).main([str(source), "--out", str(tmp_path)]) == 0
    text = (tmp_path / f"train.{case.languages[0]}").read_text(encoding="utf-8")
    assert text.startswith(first)
    assert text.count("\n") == case.sizes["train"]
