"""Reading an OpenNMT-py checkpoint: no code of it runs, and whatever is wrong has a clear text."""

from __future__ import annotations

import os
import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from opennmt_sd.onmt import unpickling

# From here on `weights_only=True` can be told of a Namespace, and cannot be led around.
HAS_SAFE_LOAD = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)


class CheckpointError(ValueError, RuntimeError):
    """A file that is not the checkpoint it should be. The text says why and what to do.

    A RuntimeError too, since those are what ``onmt_server`` answers its client with.
    """


def allow_namespace() -> None:
    """Let ``torch.load`` read the options of a checkpoint, an ``argparse.Namespace``.

    From torch 2.6 on ``torch.load`` refuses what it does not know, and OpenNMT-py 3.5.1 does not
    say otherwise. A namespace holds plain values and runs nothing when it is read.
    """
    if hasattr(torch.serialization, "add_safe_globals"):  # torch >= 2.4
        torch.serialization.add_safe_globals([Namespace])


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether every byte of a checkpoint, which is a zip file, agrees with its checksum.

    torch does not look at the checksums: a flipped bit in a weight would pass.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # noqa: BLE001 - of a damaged file zipfile raises a dozen kinds
        return False


def check_file(path: Path, kind: str = "a checkpoint file") -> None:
    """Refuse what is no ordinary file: reading a pipe or a device would never end.

    Raises:
        CheckpointError: no such file; a folder, device or pipe; or it may not be read.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder: give {kind}{_newest(path)}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: this is a device or a pipe: give {kind}")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path}: you may not read this file")


def read(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Args:
        path: the file.
        mmap: leave the weights on the disk until they are used: quick, for a look at the options.

    Raises:
        CheckpointError: no such file, truncated or damaged, or not an OpenNMT-py checkpoint.
    """
    path = Path(path)
    check_file(path)
    if not mmap and zipfile.is_zipfile(path) and not is_whole(path):
        raise CheckpointError(
            f"{path}: damaged: its bytes do not agree with their checksums; take another checkpoint"
        )
    checkpoint = read_pickle(path, mmap=mmap)
    opt = checkpoint.get("opt") if isinstance(checkpoint, dict) else None
    if not isinstance(opt, Namespace) or not isinstance(checkpoint.get("vocab"), Mapping):
        raise CheckpointError(
            f"{path}: not an OpenNMT-py checkpoint: it has no model options and vocabulary"
        )
    for key in ("encoder_type", "decoder_type"):
        if not isinstance(getattr(opt, key, ""), str):
            raise CheckpointError(
                f"{path}: not an OpenNMT-py checkpoint: its {key} is {getattr(opt, key)!r}, no name"
            )
    return checkpoint


def read_complete(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint that has all that OpenNMT-py takes from it unasked.

    Raises:
        CheckpointError: as :func:`read`; or a part is missing.
    """
    checkpoint = read(path)
    missing = [key for key in ("src", "tgt", "data_task") if key not in checkpoint["vocab"]]
    missing = [f"vocab[{key!r}]" for key in missing]
    # Weights may lie in a safetensors file beside it; then both keys are missing.
    if "model" in checkpoint or "generator" in checkpoint:
        missing += [key for key in ("model", "generator") if key not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{path}: not a whole OpenNMT-py checkpoint: it has no {', '.join(missing)}; take one "
            "that onmt_train wrote"
        )
    return checkpoint


def read_pickle(path: Path, *, mmap: bool = False) -> Any:
    """Return what ``torch.save`` wrote, on the CPU, if it is data only; :func:`read` says more."""
    mmap = mmap and zipfile.is_zipfile(path)  # files of before torch 1.6 are none
    options: dict[str, Any] = {"map_location": "cpu", "mmap": mmap}
    try:
        if _is_program(path):
            raise ValueError("it is a TorchScript program")
        if HAS_SAFE_LOAD:
            allow_namespace()
            return torch.load(str(path), weights_only=True, **options)
        # torch 2.1 and 2.2 map no other kind of path than a str
        return torch.load(str(path), pickle_module=unpickling, weights_only=False, **options)
    except Exception as error:  # a damaged pickle can raise anything, TypeError among others
        raise CheckpointError(
            f"{path}: not readable as a checkpoint: the file is damaged, incomplete or of "
            f"another kind ({_reason(error)})"
        ) from error


def _is_program(path: Path) -> bool:
    """Return whether ``torch.load`` would hand the file on to ``torch.jit.load``."""
    if not zipfile.is_zipfile(path):
        return False
    with torch.serialization._open_zipfile_reader(str(path)) as file:
        return torch.serialization._is_torchscript_zip(file)


def _reason(error: Exception) -> str:
    """Return the reason alone: torch's text goes on with advice to load the file unsafely."""
    text = str(error).strip()
    if named := re.search(r"GLOBAL (\S+)", text):
        text = f"it names {named[1]}, which could run code"
    elif "WeightsUnpickler error:" in text:
        text = text.partition("WeightsUnpickler error:")[2].strip()
    elif "weights_only" in text:
        text = "it holds more than plain data"
    first = text.splitlines()[0].strip() if text else "no details"
    return f"{type(error).__name__}: {first}"


def _newest(folder: Path) -> str:
    """Name the newest checkpoint in a folder, if there is one."""
    try:
        steps = [(int(path.stem.rpartition("_step_")[2]), path.name)
                 for path in folder.glob("*_step_*.pt") if path.is_file()
                 and path.stem.rpartition("_step_")[2].isdigit()]  # fmt: skip
    except OSError:
        return ""
    return f", such as {folder / max(steps)[1]}" if steps else ""
