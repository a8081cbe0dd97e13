"""Word vectors from a GloVe text file: a word and its numbers on each line; plain, .gz or .xz."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

Vectors = dict[str, npt.NDArray[np.float32]]
OPENERS = {".gz": gzip.open, ".xz": lzma.open}


class GloveError(ValueError):
    """A file of vectors that cannot be used; the text gives file, line, rule and remedy."""


def read(path: Path | str, dim: int, only: Collection[str] | None = None) -> Vectors:
    """Word to vector, in the file's order.

    Args:
        dim: how many numbers a vector has.
        only: the words to keep; None (default) keeps all. A set is quick.

    Raises:
        GloveError: vectors of another length, something that is no number, a broken archive, or
            no vector at all. OSError: it cannot be opened.
    """
    path = Path(path)
    vectors: Vectors = {}
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                _add(vectors, path, number, line, dim, only)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise GloveError(
            f"{path} cannot be read as GloVe text ({error}): is it whole, and its name right (.gz, "
            ".xz, or plain text)? Unpack a .zip first, or fetch it again"
        ) from None
    if not vectors:
        raise GloveError(f"{path} holds none of the vectors that were asked for")
    return vectors


def _open(path: Path) -> TextIO:
    # newline: some of GloVe's words hold characters at which "universal newlines" would cut.
    opener = OPENERS.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8", newline="\n")  # type: ignore[operator]


def _add(
    vectors: Vectors, path: Path, number: int, line: str, dim: int, only: Collection[str] | None
) -> None:
    line = line.rstrip("\r\n ")
    word, *numbers = line.rsplit(" ", dim)  # a word may hold blanks
    if number == 1 and line.count(" ") == 1 and line.replace(" ", "").isdigit():
        return  # word2vec's header: how many vectors, how long
    if not line:
        return
    if len(numbers) != dim or (_is_number(word.rpartition(" ")[2]) and " " in word):
        found = line.count(" ")
        if not found:
            raise GloveError(
                f"{path}:{number}: no numbers behind {word[:40]!r}: expected a word and {dim} "
                "numbers, with single blanks between them"
            )
        raise GloveError(
            f"{path}:{number}: a vector of {found} numbers, but the model's word vectors have "
            f"{dim}: set model.word_dim={found}, or take another file"
        )
    if only is not None and word not in only:
        return
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        raise GloveError(f"{path}:{number}: not {dim} numbers behind {word!r}") from None
    if not np.isfinite(vector).all():
        raise GloveError(f"{path}:{number}: the vector of {word!r} is not finite")
    vectors.setdefault(word, vector)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
