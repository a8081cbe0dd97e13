"""Text files in every form in which they come, and that each remedy works when it is tried."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import subprocess
from pathlib import Path

import pytest

from opennmt_sd.data import textfile
from opennmt_sd.data.textfile import TextError, opened, pieces, read_text

TEXT = "der Bär läuft\nüber die Straße\n" * 20


def refusal(path: Path, encoding: str = "utf-8") -> str:
    with pytest.raises(TextError) as error:
        read_text(path, encoding)
    return str(error.value)


def follow(remedy: str) -> Path:
    """Run the command in a text, and give the file that it writes."""
    command = re.findall("`(.*?)`", remedy)[0]
    subprocess.run(["bash", "-c", command], check=False, timeout=60)
    return Path(command.rpartition("> ")[2].strip("'"))


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-16", ""), ("utf-16-le", "\ufeff"),
     ("utf-16-be", ""), ("utf-32", ""), ("latin-1", ""), ("cp1252", "")],
)  # fmt: skip
def test_a_text_in_its_encoding(
    tmp_path: Path, monkeypatch, encoding: str, mark: str, size: int
) -> None:
    monkeypatch.setattr(textfile, "SIZE", size)
    (tmp_path / "a.txt").write_bytes((mark + TEXT).encode(encoding))
    assert read_text(tmp_path / "a.txt", encoding) == TEXT


def test_nothing_is_translated(tmp_path: Path) -> None:
    text = "a\r\nb\rc\u2028d\x85\n\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_text(tmp_path / "a.txt") == text
    with opened(tmp_path / "a.txt") as file:
        assert list(file) == ["a\r\n", "b\rc\u2028d\x85\n", "\n"]


def test_an_empty_file_has_no_piece(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    assert list(pieces(tmp_path / "a.txt")) == []


@pytest.mark.parametrize(
    ("encoding", "name", "setting"),
    [("utf-16", "UTF-16", "utf-16"), ("utf-16-le", "UTF-16LE", "utf-16-le"),
     ("utf-16-be", "UTF-16BE", "utf-16-be"), ("utf-32", "UTF-32", "utf-32"),
     ("utf-32-be", "UTF-32BE", "utf-32-be")],
)  # fmt: skip
def test_wide_characters(tmp_path: Path, encoding: str, name: str, setting: str) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(TEXT.encode(encoding))
    text = refusal(path)
    assert text == (
        f"{path} is {name} text, read as UTF-8: convert it, `iconv -f {name} -t UTF-8 '{path}' > "
        f"'{tmp_path}/a b.utf8.txt'`, or read it as it is: data.encoding={setting}"
    )
    assert read_text(follow(text)) == TEXT
    assert read_text(path, setting) == TEXT


@pytest.mark.parametrize(("pack", "program", "suffix"), [
    (gzip.compress, "gzip", ".txt.gz"), (bz2.compress, "bzip2", ".txt"),
    (lzma.compress, "xz", ".txt.xz"),
])  # fmt: skip
def test_compressed(tmp_path: Path, pack, program: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pack(TEXT.encode()))
    text = refusal(path)
    assert text.startswith(f"{path} is compressed by {program}, and plain text is needed: unpack")
    if program != "bzip2":  # not on every machine
        assert read_text(follow(text)) == TEXT


def test_compressed_and_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for pack in (gzip.compress, lzma.compress):
        packed = pack(TEXT.encode())
        path.write_bytes(packed)
        with opened(path, unpack=True) as file:
            assert file.read() == TEXT
        path.write_bytes(packed[:-20])
        with (
            pytest.raises(TextError, match=r"cannot be unpacked .* cut short or damaged"),
            opened(path, unpack=True) as file,
        ):
            file.read()


def test_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("the cat\nle caf\xe9 \u2013 ferm\xe9\n".encode("cp1252"))
    text = refusal(path)
    assert text == (
        f"{path}, line 2: byte 0xe9 (number 7 of the line) is not UTF-8. As Windows-1252 the line "
        f"reads 'le caf\xe9 \u2013 ferm\xe9'. If that is right, convert it, `iconv -f WINDOWS-1252 "
        f"-t UTF-8 {path} > {tmp_path}/a.utf8.txt`, or read it as it is: data.encoding=cp1252; if "
        "not, name the encoding it has"
    )
    assert read_text(follow(text)) == read_text(path, "cp1252") == (
        "the cat\nle caf\xe9 \u2013 ferm\xe9\n"
    )  # fmt: skip
    path.write_bytes(b"caf\xe9 \x81\n")  # which Windows-1252 lacks
    assert "iconv -f ISO-8859-1" in refusal(path)


def test_cut_within_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("die Stra\xdfe\nein B\xe4".encode()[:-1])
    text = refusal(path)
    assert text.startswith(f"{path}, line 2: the file ends within a character: it was cut there. ")
    assert read_text(follow(text)) == "die Stra\xdfe\nein B"


def test_a_byte_flipped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("die Stra\xdfe\nein B".encode() + b"\xff" + "\xe4r\n".encode())
    text = refusal(path)
    assert "byte 0xff (number 6 of the line) is not UTF-8, and what comes before it is" in text
    assert read_text(follow(text)) == "die Stra\xdfe\nein B\xe4r\n"


def test_a_nul(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode() + b"ein\0 Hund\n")
    text = refusal(path)
    assert text.startswith(f"{path}, line 41: a NUL byte (number 4 of the line), which no text has")
    assert read_text(follow(text)) == TEXT + "ein Hund\n"


@pytest.mark.parametrize(("content", "said"), [
    (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "is a PDF document, not plain text"),
    (b"PK\x03\x04\x14\0\0\0\x08\0", "is a ZIP archive: unpack it, `unzip "),
    (b"PK\x03\x04\x14\0\0\0\x08\0[Content_Types].xml\0", "is an office document, not plain text"),
    (bytes(range(256)) * 8, "is binary data, not text: name a text file"),
    (b"\x80\x02}q\0(X\x01\0\0\0", "is binary data, not text: name a text file"),
])  # fmt: skip
def test_no_text_at_all(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert refusal(tmp_path / "a.txt").startswith(f"{tmp_path / 'a.txt'} {said}")


def test_another_encoding_than_was_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    assert refusal(path, "ascii") == (
        f"{path}, line 1: byte 0xc3 (number 6 of the line) is not ASCII: ordinal not in range(128)."
        " Say what it is, data.encoding=.. (UTF-8 where it is left out)"
    )
    assert refusal(path, "utf-16").endswith("is not UTF-16 text: say what it is, data.encoding=..")


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert refusal(path) == f"{path} is not there: check the path and the file's name"
    assert refusal(tmp_path) == f"{tmp_path} is a folder: name a text file"


def test_an_unknown_encoding() -> None:
    assert textfile.check_encoding("cp1252") == "cp1252"
    for name in ("klingon", "base64", ""):
        with pytest.raises(ValueError) as error:
            textfile.check_encoding(name)
        assert str(error.value) == (
            f"encoding {name!r} is unknown: use a name that Python knows, such as utf-8, "
            "utf-16, latin-1 or cp1252"
        )
