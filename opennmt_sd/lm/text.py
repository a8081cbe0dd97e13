"""From a text file to the numbers of its words or characters, some millions at a time.

Lines end at ``\\n`` and ``\\r\\n``; ``<eos>`` stands for the end of each line, that of a last line
without a line feed too. So a text of one long line (text8, say) has one ``<eos>``, at its very end.
Words stand between blanks of any kind. At the level of characters all that is not a line end is a
character, blanks too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from opennmt_sd.data.textfile import TextError, check_encoding, opened, pieces

WORD, CHAR = LEVELS = ("word", "char")
UNITS = {WORD: "words", CHAR: "characters"}
EOS = "<eos>"  # ends every line
UNK = "<unk>"  # stands for what the vocabulary lacks
LEAST = 3  # the smallest vocabulary to ask for: one word, <eos>, <unk>

# A text that cannot be used; the message says where, what the rule is and what to do.
CorpusError = TextError

Ids = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Args:
        level: ``"word"`` (default) or ``"char"``.
        min_count: what the training text holds less often is ``<unk>``; with 2 or more there
            always is one. Default None: 1; but 2 where the texts need an ``<unk>`` (valid or test
            hold a word that training lacks) and the training text has none.
        max_words: the size of the vocabulary at most, ``<eos>`` and ``<unk>`` included: rarer words
            are ``<unk>``. Default None: any size.
        encoding: of the files. Default UTF-8.

    Raises:
        ValueError: no such level or encoding, a number too small.
    """

    level: str = WORD
    min_count: int | None = None
    max_words: int | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_level(self.level)
        check_encoding(self.encoding)
        if self.min_count is not None and self.min_count < 1:
            raise ValueError(f"min_count must be 1 or more, got {self.min_count}")
        if self.max_words is not None and self.max_words < LEAST:
            raise ValueError(
                f"max_words must be {LEAST} or more, for {EOS}, {UNK} and a word: got "
                f"{self.max_words}"
            )


def check_level(level: str) -> str:
    """Return a level. Raises: ValueError: there is no such one."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r} is unknown: use one of {', '.join(LEVELS)}")
    return level


class Numbers(dict[str, int]):
    """The number of each word; one that comes for the first time gets the next."""

    def __init__(self) -> None:
        super().__init__({EOS: 0, "\n": 0})

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class Known(dict[str, int]):
    """The number of each word of a vocabulary, and -1 for any other."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        super().__init__({**ids, "\n": ids[EOS]})

    def __missing__(self, word: str) -> int:
        return -1


def numbers(path: Path, level: str, encoding: str, table: dict[str, int]) -> list[Ids]:
    """Read a text as the numbers that a table gives to its words or characters.

    Args:
        table: a :class:`Numbers`, which grows, or a :class:`Known`.

    Returns:
        int16 or int32 ``[n]`` for each piece of the file.

    Raises:
        CorpusError: the file is missing, empty, of another encoding, or no text.
    """
    split = _words if level == WORD else _characters
    number = table.__getitem__
    found: list[Ids] = []
    for words in split(_with_line_ends(path, encoding)):
        ids = np.fromiter(map(number, words), np.int32, len(words))
        found.append(ids.astype(smallest(len(table)), copy=False))
    return found


def smallest(size: int) -> type[np.int16] | type[np.int32]:
    """Return the smaller type that holds -1 and every number below a size."""
    return np.int16 if size <= np.iinfo(np.int16).max else np.int32


def first_unknown(
    path: Path, level: str, encoding: str, known: Mapping[str, int]
) -> tuple[int, str]:
    """Return the line and the word of the first one that a vocabulary lacks."""
    with opened(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            text = line.removesuffix("\n").removesuffix("\r")
            for word in line.split() if level == WORD else text:
                if word not in known:
                    return number, word
    raise ValueError(f"{path} holds no unknown word")


def _with_line_ends(path: Path, encoding: str) -> Iterator[str]:
    """Give the pieces of a text, each line of it ended by a line feed alone."""
    held, last = "", "\n"
    blank, feeds, returns = True, False, False
    for piece in pieces(path, encoding):
        text = held + piece
        held = "\r" if text.endswith("\r") else ""  # what follows may be its line feed
        if "\r" in text:
            text = text.removesuffix("\r").replace("\r\n", "\n")
            returns = returns or bool(held) or "\r" in text
        if text:
            blank = blank and not text.strip()
            feeds, last = feeds or "\n" in text, text[-1]
            yield text
    if blank:
        raise CorpusError(f"{path} is empty: a corpus needs text")
    if returns and not feeds:
        raise CorpusError(
            f"{path}: its lines end with carriage returns alone, as on old Macs, and line feeds "
            f"are needed: `tr '\\r' '\\n' < {path.name} > unix-{path.name}`"
        )
    if last != "\n":
        yield "\n"


def _words(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    """Give the words of a text, a list for each piece; ``<eos>`` stands for a line feed."""
    begun = ""  # a word that the end of a piece has cut
    for text in texts:
        words = (begun + text).replace("\n", f" {EOS} ").split()
        begun = "" if text[-1].isspace() else words.pop()
        if words:
            yield words


def _characters(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    return iter(texts)
