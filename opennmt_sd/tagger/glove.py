"""Word vectors from a GloVe text file: a word and its numbers on each line; plain, gzip or xz."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opennmt_sd.data.textfile import TextError, check_no_nul, opened

Vector = npt.NDArray[np.float32]
Vectors = dict[str, Vector]

# A file of vectors that cannot be used; the text gives file, line, rule and remedy.
GloveError = TextError


def read(path: Path | str, dim: int, only: Collection[str] | None = None) -> Vectors:
    """Return the vectors of words, in the file's order; of a word that comes twice, the first.

    Args:
        dim: how many numbers a vector has.
        only: the words to keep; None (default) keeps all. A set is quick.

    Raises:
        GloveError: no such file, no text, vectors of another length, something that is no number,
            a file that was cut, or no vector at all.
    """
    path = Path(path)
    vectors: Vectors = {}
    good = 0  # lines that held a vector
    with opened(path, unpack=True, setting=None) as file:
        for number, raw in enumerate(file, start=1):
            check_no_nul(path, raw, setting=None)
            line = raw.rstrip("\r\n ")
            if not line or (number == 1 and _is_header(line)):
                continue
            try:
                word, numbers = _split(line, dim, good)
                if only is None or word in only:
                    vectors.setdefault(word, _vector(word, numbers))
            except ValueError as error:
                if good and not file.read(1):
                    raise GloveError(_cut(path, number, dim)) from None
                raise GloveError(f"{path}:{number}: {error}") from None
            good += 1
    if not vectors:
        raise GloveError(f"{path} holds none of the vectors that were asked for")
    return vectors


def _is_header(line: str) -> bool:
    """Tell whether a first line is word2vec's: how many vectors, how long."""
    return line.count(" ") == 1 and line.replace(" ", "").isdigit()


def _split(line: str, dim: int, good: int) -> tuple[str, list[str]]:
    """Split a line into its word, which may hold blanks, and its numbers.

    Args:
        good: how many lines before had ``dim`` numbers.

    Raises:
        ValueError: it has another number of them.
    """
    word, *numbers = line.rsplit(" ", dim)
    if len(numbers) == dim and not (" " in word and _is_number(word.rpartition(" ")[2])):
        return word, numbers
    found = line.count(" ")
    if not found:
        raise ValueError(
            f"no numbers behind {word[:40]!r}: expected a word and {dim} numbers, with single "
            "blanks between them"
        )
    if good:
        raise ValueError(
            f"a vector of {found} numbers, and the {good:,} before it have {dim}: the file is "
            "damaged there. Fetch it again, or take this line out"
        )
    raise ValueError(
        f"a vector of {found} numbers, but the model's word vectors have {dim}: set "
        f"model.word_dim={found}, or take another file"
    )


def _vector(word: str, numbers: list[str]) -> Vector:
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        raise ValueError(f"not {len(numbers)} numbers behind {word!r}") from None
    if not np.isfinite(vector).all():
        raise ValueError(f"the vector of {word!r} is not finite")
    return vector


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cut(path: Path, number: int, dim: int) -> str:
    return (
        f"{path} ends within a vector (line {number:,}, the last one, has no {dim} numbers behind "
        "its word): it was cut there. Fetch it again, or take that line out"
    )
