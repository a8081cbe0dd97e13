"""Lines for a terminal: names from files (a stranger's checkpoint, say) cannot steer it."""

from __future__ import annotations

import logging
import unicodedata


class Formatter(logging.Formatter):
    """Writes log lines without control characters; line ends and tabs stay."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return plain(super().format(record))


def plain(text: str) -> str:
    """Return text with its control characters as escapes, but for line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1]
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in "\n\t"
        else char
        for char in text
    )
