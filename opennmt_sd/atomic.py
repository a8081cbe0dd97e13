"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def writer(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file for writing; it takes its name when all of it is on the disk.

    Whatever happens before, a file that bore the name stays as it was and nothing else is left. Of
    a process that is killed ``path.partial`` may stay; the next write replaces it. A link stays a
    link, permissions stay as they were, and what is no ordinary file (``/dev/stdout``) is written
    straight to.

    Args:
        path: where; its folder must be there.
        mode, options: of ``open``.

    Raises:
        OSError: the disk is full, say.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with open(path, mode, **options) as file:
            yield file
        return
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, its line ends as they are.

    Raises:
        OSError: the disk is full, say; a file of before stays as it was.
    """
    with writer(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def copy(source: Path, path: Path) -> None:
    """Copy the content of a file.

    Raises:
        OSError: the disk is full, say; a file of before stays as it was.
    """
    with open(source, "rb") as read, writer(path) as file:
        shutil.copyfileobj(read, file)


def _sync_folder(folder: Path) -> None:
    """Let the disk know the new name, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
