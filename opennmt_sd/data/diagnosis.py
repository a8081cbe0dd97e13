"""What a file is that was to be text and cannot be read as such, and what to do about it."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

HEAD = 1 << 16  # bytes that tell what a file is
PREVIEW = 40  # characters of a line that are shown

# How compressed files begin, by the program that unpacks them.
MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00", "zstd": b"\x28\xb5\x2f\xfd"}
ZIP = b"PK\x03\x04"
OFFICE = (b"[Content_Types].xml", b"mimetypeapplication/")  # in the head of .docx, of .odt
KINDS = {
    b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel document",
    b"{\\rtf": "an RTF document",
}
# UTF-32 first: its mark begins as that of UTF-16 does.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def diagnose(path: Path, encoding: str, setting: str | None = "data.encoding") -> str:
    """Tell why a file cannot be read as text of an encoding, and what to do.

    Args:
        path: a file that has failed to decode, or that holds a NUL.
        setting: the option that names another encoding; None: there is none.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for program, magic in MAGIC.items():
        if head.startswith(magic):
            return (
                f"{path} is compressed by {program}, and plain text is needed: unpack it, "
                f"`{program} -dc < {_quoted(path)} > {_quoted(_unpacked(path))}`, and name that"
            )
    office = head.startswith(ZIP) and any(name in head for name in OFFICE)
    for magic, kind in {**KINDS, **({ZIP: "an office document"} if office else {})}.items():
        if head.startswith(magic):
            return f"{path} is {kind}, not plain text: save it as UTF-8 text, and name that"
    if head.startswith(ZIP):
        return f"{path} is a ZIP archive: unpack it, `unzip {_quoted(path)}`, and name a text in it"
    if found := _wide(head):
        remedy = _convert(path, found, setting)
        return f"{path} is {found} text, read as {_called(encoding)}: {remedy}"
    if _is_binary(head):
        return f"{path} is binary data, not text: name a text file"
    return _locate(path, encoding, setting)


def _wide(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32, with its byte order where no mark tells it; None: neither."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    head = head[: len(head) // 4 * 4]
    if not head:
        return None
    # What is zero in most characters of European text: three bytes of four, or one of two.
    zeros = tuple(head[i::4].count(0) / (len(head) // 4) > 0.6 for i in range(4))
    orders: dict[tuple[bool, ...], str] = {
        (False, True, True, True): "UTF-32LE",
        (True, True, True, False): "UTF-32BE",
        (False, True, False, True): "UTF-16LE",
        (True, False, True, False): "UTF-16BE",
    }
    return orders.get(zeros)


def _is_binary(head: bytes) -> bool:
    """Tell whether it has some control characters that no text has, one in 50 bytes or more."""
    controls = sum(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in head)
    return controls > max(2, len(head) / 50)


def _locate(path: Path, encoding: str, setting: str | None) -> str:
    """Tell the first place that fails, in an encoding whose line ends are those of ASCII."""
    seen = False  # characters beyond ASCII that could be read
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number:,}:"
            if 0 in line:
                return (
                    f"{where} a NUL byte (number {line.index(0) + 1} of the line), which no text "
                    "has: the file is damaged. Leave these bytes out, "
                    f"`tr -d '\\000' < {_quoted(path)} > {_quoted(_utf8(path))}`"
                )
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                cut = error.reason == "unexpected end of data" and not line.endswith(b"\n")
                return f"{where} " + _bad_byte(path, line, error, encoding, seen, cut, setting)
            except UnicodeError:
                break
            seen = seen or not line.isascii()
    return (
        f"{path} is not {_called(encoding)} text"
        + (f": say what it is, {setting}=.." if setting else "")
    )  # fmt: skip


def _bad_byte(
    path: Path,
    line: bytes,
    error: UnicodeDecodeError,
    encoding: str,
    seen: bool,
    cut: bool,
    setting: str | None,
) -> str:
    byte = f"byte 0x{line[error.start]:02x} (number {error.start + 1} of the line)"
    called = _called(encoding)
    if _is_utf8(encoding) and (cut or seen or not line[: error.start].isascii()):
        what = (
            "the file ends within a character: it was cut there" if cut
            else f"{byte} is not UTF-8, and what comes before it is: the file is damaged there"
        )  # fmt: skip
        return (
            f"{what}. Leave such bytes out, "
            f"`iconv -f UTF-8 -t UTF-8 -c {_quoted(path)} > {_quoted(_utf8(path))}`"
        )
    if not _is_utf8(encoding):
        return (
            f"{byte} is not {called}: {error.reason}"
            + (f". Say what it is, {setting}=.. (UTF-8 where it is left out)" if setting else "")
        )  # fmt: skip
    other = _eight_bits(line)
    shown = line.decode(other).strip()[:PREVIEW]
    name = {"cp1252": "Windows-1252", "latin-1": "ISO-8859-1"}[other]
    return (
        f"{byte} is not UTF-8. As {name} the line reads {shown!r}. If that is right, "
        f"{_convert(path, name.upper(), setting, other)}; if not, name the encoding it has"
    )


def _eight_bits(line: bytes) -> str:
    """Return the likeliest encoding of one byte a character: Windows', which extends Latin-1."""
    try:
        line.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _convert(path: Path, name: str, setting: str | None, python: str | None = None) -> str:
    remedy = f"convert it, `iconv -f {name} -t UTF-8 {_quoted(path)} > {_quoted(_utf8(path))}`"
    if setting is None:
        return remedy
    names = {"UTF-16LE": "utf-16-le", "UTF-16BE": "utf-16-be",
             "UTF-32LE": "utf-32-le", "UTF-32BE": "utf-32-be"}  # fmt: skip
    return f"{remedy}, or read it as it is: {setting}={python or names.get(name, name.lower())}"


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _called(encoding: str) -> str:
    return encoding.upper()


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _utf8(path: Path) -> Path:
    """Give a name for the converted file, beside the other."""
    return path.with_name(f"{path.stem}.utf8{path.suffix}")


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (".gz", ".bz2", ".xz", ".zst") else (
        path.with_name(f"{path.stem}.unpacked{path.suffix}"))  # fmt: skip
