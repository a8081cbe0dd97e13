"""Reading GloVe text."""

from __future__ import annotations

import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from opennmt_sd.tagger.glove import GloveError, read

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
    with zipfile.ZipFile(tmp_path / "glove.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write(TEXT))
    (tmp_path / "packed.txt").write_bytes(gzip.compress(TEXT.encode()))
    for name in ("glove.zip", "packed.txt"):
        with pytest.raises(GloveError, match=r"its name right .* Unpack a \.zip first, or fetch"):
            read(tmp_path / name, 3)


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
        ("a 1 2 3\nb 1 2\n", "{path}:2: a vector of 2 numbers, but the model's word vectors have"),
        ("a 1 2 3\nb 1 2 3 4\n", "{path}:2: a vector of 4 numbers"),
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
def test_cut_short(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"glove{suffix}"
    pack = {".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path.write_bytes(pack(b"a 1 2 3\n" * 1000)[:-10])
    with pytest.raises(GloveError, match=r"cannot be read as GloVe text .* is it whole, and"):
        read(path, 3)
