"""Reading text files: UTF-8, one sentence a line, words between blanks."""

from __future__ import annotations

import codecs
from pathlib import Path


class CorpusError(ValueError):
    """A text that cannot be used; the message says where, what the rule is and what to do."""


def read_lines(path: Path) -> list[list[str]]:
    """The words of each line.

    Lines end at a line feed and nowhere else (``str.splitlines`` also ends them at odd characters);
    a byte order mark at the start is not text.

    Raises:
        CorpusError: the file is missing, empty, of one line, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path} is not there: check the path and the file's name") from None
    except IsADirectoryError:
        raise CorpusError(f"{path} is a folder: name a text file") from None
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise CorpusError(
            f"{path}, line {line:,}: byte 0x{data[error.start]:02x} (number {column} of the line) "
            "is not UTF-8. Convert the file, for instance from Latin-1 with "
            f"`iconv -f latin1 -t utf-8 {path.name}`"
        ) from None
    if not text.strip():
        raise CorpusError(f"{path} is empty: a corpus needs text, one sentence a line")
    lines = [line.split() for line in text.removesuffix("\n").split("\n")]
    if len(lines) == 1:
        raise CorpusError(
            f"{path} has one line, of {len(lines[0]):,} words: a corpus needs two or more. "
            "Write one sentence or paragraph a line; an <eos> is added to the end of each"
        )
    return lines
