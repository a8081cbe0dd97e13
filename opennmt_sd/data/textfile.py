"""Reading text files: in the encoding that is named, and with one clear text for a file that fails.

The tagger's columns, the language model's texts and GloVe's vectors are all read through
:func:`opened` or :func:`pieces`; what is wrong with a file is found out only once it has failed
(:mod:`opennmt_sd.data.diagnosis`).
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from opennmt_sd.data.diagnosis import MAGIC, diagnose

SIZE = 1 << 22  # characters of a piece
BOM = "\ufeff"
NUL = "\0"


class TextError(ValueError):
    """A text that cannot be used; the message says where, what the rule is and what to do."""


def check_encoding(name: str) -> str:
    """Return the name of an encoding.

    Raises:
        ValueError: Python knows no text encoding of this name.
    """
    try:
        codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            f"encoding {name!r} is unknown: use a name that Python knows, such as utf-8, utf-16, "
            "latin-1 or cp1252"
        ) from None
    return name


@contextmanager
def opened(
    path: Path | str,
    encoding: str = "utf-8",
    *,
    unpack: bool = False,
    setting: str | None = "data.encoding",
) -> Iterator[TextIO]:
    """Open a text file; whatever fails while it is read becomes a :class:`TextError`.

    Lines end at ``\\n`` and nowhere else, and nothing is translated. A byte order mark at the start
    of UTF-8 is left out.

    Args:
        encoding: of the text. Default UTF-8.
        unpack: read through gzip and xz, whatever the name. Default False: such a file is refused.
        setting: the option that names another encoding, for the error; None: there is none.

    Raises:
        TextError: no such file, a folder, no permission, another encoding, compressed, binary.
    """
    path = Path(path)
    try:
        file = open_bytes(path, unpack)
    except FileNotFoundError:
        raise TextError(f"{path} is not there: check the path and the file's name") from None
    except IsADirectoryError:
        raise TextError(f"{path} is a folder: name a text file") from None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from error
    signed = codecs.lookup(encoding).name == "utf-8"
    with io.TextIOWrapper(file, "utf-8-sig" if signed else encoding, newline="\n") as text:
        try:
            yield text
        except UnicodeError:
            raise TextError(diagnose(path, encoding, setting)) from None
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise TextError(
                f"{path} cannot be unpacked ({error}): it is cut short or damaged. Fetch it again"
            ) from None


def pieces(
    path: Path | str, encoding: str = "utf-8", *, setting: str | None = "data.encoding"
) -> Iterator[str]:
    """Give a file's text piece by piece, each of some millions of characters.

    Raises:
        TextError: see :func:`opened`; or it holds a NUL.
    """
    with opened(path, encoding, setting=setting) as file:
        before = BOM  # of a UTF-16 whose byte order was named
        while piece := file.read(SIZE):
            check_no_nul(path, piece, encoding, setting)
            yield piece.removeprefix(before)
            before = ""


def read_text(
    path: Path | str, encoding: str = "utf-8", *, setting: str | None = "data.encoding"
) -> str:
    """Return the whole text of a file; see :func:`pieces`."""
    return "".join(pieces(path, encoding, setting=setting))


def check_no_nul(
    path: Path | str, text: str, encoding: str = "utf-8", setting: str | None = "data.encoding"
) -> None:
    """Refuse a text with a NUL in it: no text has one, and UTF-16 that is read as UTF-8 has many.

    Raises:
        TextError: it holds one.
    """
    if NUL in text:
        raise TextError(diagnose(Path(path), encoding, setting))


def open_bytes(path: Path, unpack: bool = False) -> IO[bytes]:
    """Open a file for its bytes, behind gzip or xz where ``unpack`` is set and it is one."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    if not unpack:
        return file
    head = file.peek(8)
    if head.startswith(MAGIC["gzip"]):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(MAGIC["xz"]):
        return lzma.LZMAFile(file)
    return file
