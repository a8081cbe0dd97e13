"""What OpenNMT-py loads, it loads as this package does: no code of a file runs, on any torch.
And what its commands make of checkpoints takes the place of none of them.

Stock calls ``torch.load`` in four modules, which below torch 2.6 runs what a file says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from opennmt_sd import archive, atomic
from opennmt_sd.onmt.checkpoint import (
    CHOICES,
    CheckpointError,
    check_file,
    file_of,
    read_complete,
    read_pickle,
)
from opennmt_sd.ops import calibration
from opennmt_sd.seq2seq.wrapping import wrap


class _Torch:
    """torch, with another ``load`` and perhaps another ``save``."""

    def __init__(self, load: Callable[..., Any], **others: Callable[..., Any]) -> None:
        self.load = load
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def register_loading() -> None:
    """Let the modules that are there whenever OpenNMT-py is read files with ours."""
    load_safely(import_module("onmt.models.model_saver"), save=_save_with_choices)
    embeddings = import_module("onmt.modules.embeddings")
    vars(embeddings)["torch"] = _Torch(_read_vectors)
    wrap(embeddings, "convert_to_torch_tensor", _with_some_words)


def load_safely(module: ModuleType, **others: Callable[..., Any]) -> None:
    """Let a module that calls ``torch.load`` for a checkpoint read it with ours.

    Args:
        others: what else it gets in the place of torch's.
    """
    vars(module)["torch"] = _Torch(lambda path, **_: read_complete(path), **others)


def _save_with_choices(content: dict[str, Any], path: Any) -> None:
    """Save a checkpoint of a training; what was chosen by measurement travels along."""
    choices = calibration.in_force()
    torch.save({**content, CHOICES: choices} if choices else content, path)


def load_safely_as_command(module: ModuleType) -> None:
    """Do so for the module of a command that makes a checkpoint of others: it says in one line
    what is wrong with a file, and writes a whole file or none, never over one that it has read."""
    from opennmt_sd.onmt.plain_errors import show_plainly

    were_read: list[Path] = []

    def load(path: str, **_: Any) -> Any:
        were_read.append(file_of(path))
        return read_complete(path)

    def save(content: Any, path: str) -> None:
        output = Path(path)
        if output.is_file() and any(output.samefile(each) for each in were_read):
            raise CheckpointError(
                f"{output}: this is a checkpoint that was read: give another output"
            )
        try:
            with atomic.writer(output) as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch turns some of the first into the second
            raise CheckpointError(
                f"{output}: cannot be written: {archive.reason(error)}"
            ) from error

    vars(module)["torch"] = _Torch(load, save=save)
    show_plainly()


def _with_some_words(convert: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `convert_to_torch_tensor`: a file without a known word is none of its own."""

    @functools.wraps(convert)
    def wrapped(vectors: dict[str, list[float]], vocab: Any) -> Any:
        widths = {len(vector) for vector in vectors.values()}
        if len(widths) != 1:
            found = "vectors of several widths" if widths else "no word of the vocabulary"
            raise CheckpointError(
                f"the file of word vectors (src_embeddings, tgt_embeddings, both_embeddings) holds "
                f"{found}: is it in the right language, and as embeddings_type says?"
            )
        return convert(vectors, vocab)

    return wrapped


def _read_vectors(path: str, **_: Any) -> Any:
    check_file(Path(path), "a file of word vectors")
    return read_pickle(Path(path))
