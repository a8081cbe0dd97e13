"""Vocabulary files, read as `onmt_build_vocab` writes them, whatever the words hold.

Stock splits each line at any white space of Unicode. A word with a tab, a no-break space, NEL or
U+2028 in it, or the empty word of a line of blanks, then ends training in a traceback.
"""

from __future__ import annotations

import re
from pathlib import Path

# A word, then white space of ASCII, then how often it was seen.
_COUNTED = re.compile(r"(.*)[\t ]+(\d+)[\t ]*\r?", re.DOTALL)


class VocabularyError(ValueError):
    """A vocabulary file that cannot be used; the text names the file, the line and the remedy."""


def read_vocabulary(path: str, min_count: int) -> list[str]:
    """Return the words of a vocabulary file, in its order.

    Args:
        path: a UTF-8 file, a word a line, either with a tab and its count on every line or without.
        min_count: the words seen less often are left out; without counts none is, and a blank line
            is a word too: what lies between two spaces of a text.

    Raises:
        VocabularyError: no such file, or a line that is not UTF-8, blank, or without its count.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise VocabularyError(f"{path}: {error.strerror}: make it with onmt_build_vocab") from None
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not any(line.strip() for line in lines):
        raise VocabularyError(
            f"{path}: holds no words: make it with onmt_build_vocab from texts that hold some"
        )
    texts = [_decoded(path, i, line) for i, line in enumerate(lines, 1)]
    counted = [_COUNTED.fullmatch(text) for text in texts]
    if sum(match is not None for match in counted) * 2 <= len(texts):
        if sum(text.endswith("\r") for text in texts) * 2 < len(texts):
            return texts  # of a word or two it is a part
        return [text.removesuffix("\r") for text in texts]
    words = []
    for i, (text, match) in enumerate(zip(texts, counted, strict=True), 1):
        if match is None and not text.strip(" \t\r"):
            raise VocabularyError(f"{path}, line {i} is blank: remove that line")
        if match is None:
            raise VocabularyError(
                f"{path}, line {i}: {text!r} has no count, as other lines have: add a tab and a "
                "number, or remove the counts of all"
            )
        if int(match[2]) >= min_count:
            words.append(match[1])
    return words


def _decoded(path: str, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VocabularyError(
            f"{path}, line {number}: {line[:40]!r} is not UTF-8 ({error.reason}): convert the file,"
            " for example with iconv -f latin1 -t utf-8"
        ) from None
