"""Files of `torch.save`: read as data, so that no code of a file runs on any torch."""

from __future__ import annotations

import os
import re
import zipfile
from argparse import Namespace
from typing import Any

import torch

from opennmt_sd import unpickling
from opennmt_sd.compat import TORCH, is_program

# From here on `weights_only=True` can be told of a Namespace, and cannot be led around.
HAS_SAFE_LOAD = TORCH >= (2, 6)


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether every byte of a zip file, as `torch.save` writes it, agrees with its checksum.

    torch does not look at the checksums: a flipped bit in a weight would pass. What is no ordinary
    file (opening a pipe would wait for ever) is not whole.
    """
    if not os.path.isfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # noqa: BLE001 - of a damaged file zipfile raises a dozen kinds
        return False


def load(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """Return what a file holds, its tensors on the CPU, if it is plain data and tensors only.

    Args:
        path: an ordinary file.
        mmap: leave the tensors on the disk until they are used; files of before torch 1.6 are
            read at once all the same.

    Raises:
        Exception: of any kind where the file is damaged, of another kind or holds code;
            :func:`reason` says it in a few words.
    """
    path = os.fspath(path)  # torch 2.1 and 2.2 map no other kind of path than a str
    zipped = zipfile.is_zipfile(path)
    if zipped and is_program(path):
        raise ValueError("it is a TorchScript program")
    options: dict[str, Any] = {"map_location": "cpu", "mmap": mmap and zipped}
    if HAS_SAFE_LOAD:
        torch.serialization.add_safe_globals([Namespace])
        return torch.load(path, weights_only=True, **options)
    return torch.load(path, pickle_module=unpickling, weights_only=False, **options)


def reason(error: BaseException) -> str:
    """Return why a file could not be read or written, in a line.

    Of torch's text the reason alone: it goes on with advice to load the file unsafely.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    if named := re.search(r"GLOBAL (\S+)", text):
        text = f"it names {named[1]}, which could run code"
    elif "WeightsUnpickler error:" in text:
        text = text.partition("WeightsUnpickler error:")[2].strip()
    elif "weights_only" in text:
        text = "it holds more than plain data"
    first = text.splitlines()[0].strip() if text else "no details"
    return f"{type(error).__name__}: {first}"
