"""Reading an OpenNMT-py checkpoint: no code of it runs, and whatever is wrong has a clear text."""

from __future__ import annotations

import os
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from opennmt_sd import archive
from opennmt_sd.compat import TORCH
from opennmt_sd.onmt.names import is_ours
from opennmt_sd.seq2seq.dropout_plan import BEFORE

# Where a checkpoint holds what was chosen by measurement: see opennmt_sd.ops.calibration.
CHOICES = "opennmt_sd_calibration"

# Modules that a vocabulary of OpenNMT-py 1 and 2 is made of.
OLDER = ("torchtext.", "onmt.inputters.", "onmt.io.")


class CheckpointError(ValueError, RuntimeError):
    """A file that is not the checkpoint it should be. The text says why and what to do.

    A RuntimeError too, since those are what ``onmt_server`` answers its client with.
    """


def allow_namespace() -> None:
    """Let ``torch.load`` read the options of a checkpoint, an ``argparse.Namespace``.

    From torch 2.6 on ``torch.load`` refuses what it does not know, and OpenNMT-py 3.5.1 does not
    say otherwise. A namespace holds plain values and runs nothing when it is read.
    """
    if TORCH >= (2, 4):
        torch.serialization.add_safe_globals([Namespace])


def check_file(path: Path, kind: str = "a checkpoint file", *, pipes: bool = False) -> None:
    """Refuse what is no ordinary file: reading a pipe or a device would never end.

    Args:
        kind: what is wanted, for the text.
        pipes: whether a pipe or a device will do, where it is read once from end to end.

    Raises:
        CheckpointError: no such file; a folder, device or pipe; or it may not be read.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder: give {kind}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not pipes and not path.is_file():
        raise CheckpointError(f"{path}: this is a device or a pipe: give {kind}")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path}: you may not read this file")


def read(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Args:
        path: the file, or a folder: see :func:`file_of`.
        mmap: leave the weights on the disk until they are used: quick, for a look at the options.

    Raises:
        CheckpointError: no such file, truncated or damaged, or not an OpenNMT-py checkpoint.
    """
    path = file_of(path)
    check_file(path)
    if not mmap and zipfile.is_zipfile(path) and not archive.is_whole(path):
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
    if is_ours(opt):  # stock would take today's defaults
        vars(opt).update({key: value for key, value in BEFORE.items() if not hasattr(opt, key)})
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
    try:
        return archive.load(path, mmap=mmap)
    except Exception as error:  # a damaged pickle can raise anything, TypeError among others
        why = archive.reason(error)
        if any(f"names {module}" in why for module in OLDER):
            raise CheckpointError(
                f"{path}: written by OpenNMT-py 1 or 2, whose vocabularies are code: convert it "
                "with tools/convertv2_v3.py, of OpenNMT-py's sources"
            ) from error
        raise CheckpointError(
            f"{path}: not readable as a checkpoint: the file is damaged, incomplete or of "
            f"another kind ({why})"
        ) from error


def file_of(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a path means: of a folder, that of the last step in it.

    Raises:
        CheckpointError: a folder without one, or with those of several trainings.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    steps: dict[str, list[tuple[int, Path]]] = {}
    for file in path.glob("*_step_*.pt"):
        name, _, step = file.stem.rpartition("_step_")
        if step.isdigit() and file.is_file():
            steps.setdefault(name, []).append((int(step), file))
    if not steps:
        raise CheckpointError(
            f"{path}: this is a folder: give a checkpoint file (or a folder with one that "
            "onmt_train wrote)"
        )
    newest = [max(found)[1] for _, found in sorted(steps.items())]
    if len(newest) > 1:
        raise CheckpointError(
            f"{path}: this is a folder with checkpoints of {len(newest)} trainings: give one of "
            f"{', '.join(map(str, newest))}"
        )
    return newest[0]
