"""A checkpoint for stock OpenNMT-py: what the plugin trained, without a trace of the plugin."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from opennmt_sd import atomic
from opennmt_sd.onmt.checkpoint import CHOICES, CheckpointError, file_of, read
from opennmt_sd.onmt.names import DECODERS, ENCODERS, is_ours


class ExportError(ValueError):
    """An export that was not made. Nothing was written; the text says what to do."""


class WriteError(ExportError):
    """An export that could not be written: a full disk, a folder that may not be written to."""


def export(
    checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], *, force: bool = False
) -> None:
    """Write a checkpoint that stock OpenNMT-py loads, translating to the same bytes.

    The weights and their names are stock's already: only the options change. The two types become
    ``brnn`` or ``rnn``, and every ``sd_*`` option goes. The optimizer's state stays, so stock can
    also go on training (with ordinary dropout); ``onmt_release_model`` removes it.

    Args:
        checkpoint: a checkpoint trained with the plugin, or a folder: see
            :func:`opennmt_sd.onmt.checkpoint.file_of`.
        output: the file to write; complete, or not at all.
        force: overwrite ``output``.

    Raises:
        CheckpointError: ``checkpoint`` is missing, damaged or no OpenNMT-py checkpoint.
        ExportError: it needs no export, or ``output`` exists or is ``checkpoint`` itself.
        WriteError: ``output`` cannot be written.
    """
    source, target = file_of(checkpoint), Path(os.path.realpath(output))  # through a link
    if target.exists():
        if source.exists() and target.samefile(source):
            raise ExportError(f"{target}: this is the checkpoint itself: give another output")
        if target.is_dir():
            raise ExportError(f"{target}: this is a folder: give a file")
        if not target.is_file():  # a file put in the place of /dev/null breaks the machine
            raise ExportError(f"{target}: this is a device or a pipe: give a file")
        if not force:
            raise ExportError(f"{target}: exists already: --force overwrites it")
    if not target.parent.is_dir():
        raise ExportError(f"{target}: cannot be written: No such file or directory: make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise WriteError(f"{target}: you may not write into {target.parent}: give another output")
    content = read(source)
    opt = content["opt"]
    if not is_ours(opt):
        raise ExportError(
            f"{source}: needs no export: it was trained with encoder_type "
            f"{getattr(opt, 'encoder_type', None)} and decoder_type "
            f"{getattr(opt, 'decoder_type', None)}, which stock OpenNMT-py knows"
        )
    if "model" not in content:
        raise CheckpointError(
            f"{source}: holds no weights (save_format safetensors?): only save_format: pytorch "
            "can be exported"
        )
    if getattr(opt, "copy_attn", False):
        raise ExportError(
            f"{source}: was trained with copy_attn, which stock OpenNMT-py can train but neither "
            "load again nor translate with: translate with the plugin "
            "(onmt_translate, onmt_server or onmt_sd_translate where opennmt_sd is installed)"
        )
    content["opt"] = stock_options(opt)
    content.pop(CHOICES, None)
    _save(content, target)


def stock_options(opt: Namespace) -> Namespace:
    """Copy a model's options, said in stock's words."""
    options = {key: value for key, value in vars(opt).items() if not key.startswith("sd_")}
    for key, names in (("encoder_type", ENCODERS), ("decoder_type", DECODERS)):
        if key in options:
            options[key] = names.get(options[key], options[key])
    return Namespace(**options)


def _save(content: dict[str, Any], target: Path) -> None:
    try:
        with atomic.writer(target) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch turns some of the first into the second
        text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise WriteError(f"{target}: cannot be written: {text}; nothing was left behind") from error
