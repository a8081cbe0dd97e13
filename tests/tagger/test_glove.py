"""Reading GloVe text."""

from __future__ import annotations

import gzip
import lzma
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from opennmt_sd.tagger.glove import GloveError, read


def refusal(path: Path) -> str:
    with pytest.raises(GloveError) as error:
        read(path, 3)
    return str(error.value)


TEXT = "the 0.5 -1 2e-3\n. . 1 2 3\nthe 9 9 9\n\u0085 4 5 6\n"  # a word with a blank; a repeat


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.xz"])
def test_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"glove{suffix}"
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(TEXT.encode()))
    vectors = read(path, 3)
    assert list(vectors) == ["the", ". .", "\u0085"]
    assert vectors["the"].dtype == np.float32
    np.testing.assert_allclose(vectors["the"], [0.5, -1, 0.002])  # the first one counts
    np.testing.assert_array_equal(vectors["\u0085"], [4, 5, 6])


def test_a_zip_is_told_to_be_unpacked(write, tmp_path: Path) -> None:
    path = tmp_path / "glove.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write(TEXT * 9))
    assert refusal(path) == (
        f"{path} is a ZIP archive: unpack it, `unzip {path}`, and name a text in it"
    )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_what_is_packed_is_known_by_its_content(tmp_path: Path, pack) -> None:
    (tmp_path / "glove.txt").write_bytes(pack(TEXT.encode()))
    assert list(read(tmp_path / "glove.txt", 3)) == ["the", ". .", "\u0085"]


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        path.write_bytes(TEXT.encode(encoding))
        assert re.search("is UTF-(16|16LE|32BE) text, read as UTF-8: convert it, `iconv -f UTF-",
                         refusal(path))  # fmt: skip
        assert "data.encoding" not in refusal(path)
    path.write_bytes("caf\xe9 1 2 3\n".encode("latin-1"))
    assert "As Windows-1252 the line reads 'caf\xe9 1 2 3'" in refusal(path)
    path.write_bytes(b"\xef\xbb\xbfthe 1 2 3\r\ncat 4 5 6")  # a mark, Windows' lines, no last one
    assert list(read(path, 3)) == ["the", "cat"]


def test_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} is a folder: name a text file"
    path = tmp_path / "none"
    assert refusal(path) == f"{path} is not there: check the path and the file's name"


def test_empty_lines_are_nothing(write) -> None:
    assert list(read(write("\na 1 2 3\n\nb 1 2 3\r\n\r\n"), 3)) == ["a", "b"]


def test_only_some_words_and_a_header(write) -> None:
    path = write("2 3\nthe 1 2 3\ncat 4 5 6\n")
    assert list(read(path, 3, only={"cat"})) == ["cat"]
    assert list(read(path, 3)) == ["the", "cat"]


@pytest.mark.parametrize("dim", [2, 4, 50])
def test_wrong_dimension(write, dim: int) -> None:
    path = write("the 1 2 3\n")
    with pytest.raises(GloveError) as error:
        read(path, dim)
    assert str(error.value) == (
        f"{path}:1: a vector of 3 numbers, but the model's word vectors have {dim}: set "
        "model.word_dim=3, or take another file"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a 1 2 3\nb 1 2\nc 1 2 3\n",
            "{path}:2: a vector of 2 numbers, and the 1 before it have 3: "
            "the file is damaged there. Fetch it again, or take this line out",
        ),
        ("a 1 2 3\nb 1 2 3 4\nc\n", "{path}:2: a vector of 4 numbers"),
        ("a 1 2 3\nb 1 x 3\nc 1 2 3\n", "{path}:2: not 3 numbers behind 'b'"),
        ("a 1 x 3\n", "{path}:1: not 3 numbers behind 'a'"),
        ("a 1 nan 3\n", "{path}:1: the vector of 'a' is not finite"),
        ("a\t1\t2\t3\n", "{path}:1: no numbers behind 'a\\t1\\t2\\t3': expected a word and 3 numb"),
        ("", "{path} holds none of the vectors that were asked for"),
    ],
)
def test_broken_files(write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(GloveError) as error:
        read(path, 3)
    assert str(error.value).startswith(message.format(path=path))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_packed_file_that_was_cut(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"glove{suffix}"
    pack = {".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path.write_bytes(pack(b"a 1 2 3\n" * 1000)[:-10])
    assert "cannot be unpacked (" in refusal(path)
    assert refusal(path).endswith("): it is cut short or damaged. Fetch it again")


@pytest.mark.parametrize(
    "last", ["zeb", "zebra", "zebra 0.1", "zebra 0.1 0.2", "zebra 1 2 -", ". ."]
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_that_was_cut_in_its_last_line(write, last: str, end: str) -> None:
    path = write(f"a 1 2 3\nb 1 2 3\n{last}{end}")
    assert refusal(path) == (
        f"{path} ends within a vector (line 3, the last one, has no 3 numbers behind its word): it "
        "was cut there. Fetch it again, or take that line out"
    )
