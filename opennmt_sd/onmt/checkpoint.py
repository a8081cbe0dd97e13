"""Reading an OpenNMT-py checkpoint, with a clear text for whatever is wrong with the file."""

from __future__ import annotations

import os
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A file that is not the checkpoint it should be. The text says why and what to do."""


def allow_namespace() -> None:
    """Let ``torch.load`` read the options of a checkpoint, an ``argparse.Namespace``.

    From torch 2.6 on ``torch.load`` refuses what it does not know, and OpenNMT-py 3.5.1 does not
    say otherwise: without this, stock translate, resume, average, release and server all fail.
    A namespace holds plain values and runs nothing when it is read.
    """
    if hasattr(torch.serialization, "add_safe_globals"):  # torch >= 2.4
        torch.serialization.add_safe_globals([Namespace])


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether every byte of a checkpoint, which is a zip file, agrees with its checksum.

    torch does not look at the checksums: a flipped bit in a weight would pass.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # noqa: BLE001 - of a damaged file zipfile raises a dozen kinds
        return False


def read(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Args:
        path: the file.
        mmap: leave the weights on the disk until they are used: quick, for a look at the options.

    Raises:
        CheckpointError: no such file, truncated or damaged, or not an OpenNMT-py checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder: give a checkpoint file")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if not mmap and zipfile.is_zipfile(path) and not is_whole(path):
        raise CheckpointError(
            f"{path}: damaged: its bytes do not agree with their checksums; take another checkpoint"
        )
    allow_namespace()
    # Before torch 2.4 weights_only cannot be told of the namespace; stock loads the same way.
    weights_only = hasattr(torch.serialization, "add_safe_globals")
    mmap = mmap and zipfile.is_zipfile(path)  # files of before torch 1.6 are none
    try:
        checkpoint: dict[str, Any] = torch.load(
            str(path),  # torch 2.1 and 2.2 map no other kind of path
            map_location="cpu",
            weights_only=weights_only,
            mmap=mmap,
        )
    except Exception as error:  # a damaged pickle can raise anything, TypeError among others
        first = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: not readable as a checkpoint: the file is damaged, incomplete or of "
            f"another kind ({type(error).__name__}: {first[0] if first else 'no details'})"
        ) from error
    opt = checkpoint.get("opt") if isinstance(checkpoint, dict) else None
    if not isinstance(opt, Namespace) or "vocab" not in checkpoint:
        raise CheckpointError(
            f"{path}: not an OpenNMT-py checkpoint: it has no model options and vocabulary"
        )
    return checkpoint
