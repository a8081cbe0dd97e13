"""What OpenNMT-py loads, it loads as this package does: no code of a file runs, on any torch.

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

from opennmt_sd.onmt.checkpoint import CheckpointError, check_file, read_complete, read_pickle
from opennmt_sd.onmt.compat import wrap


class _Torch:
    """torch, with another ``load``."""

    def __init__(self, load: Callable[..., Any]) -> None:
        self.load = load

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def register_loading() -> None:
    """Let the modules that are there whenever OpenNMT-py is read files with ours."""
    load_safely(import_module("onmt.models.model_saver"))
    embeddings = import_module("onmt.modules.embeddings")
    vars(embeddings)["torch"] = _Torch(_read_vectors)
    wrap(embeddings, "convert_to_torch_tensor", _with_some_words)


def load_safely(module: ModuleType) -> None:
    """Let a module that calls ``torch.load`` for a checkpoint read it with ours."""
    vars(module)["torch"] = _Torch(lambda path, **_: read_complete(path))


def load_safely_as_command(module: ModuleType) -> None:
    """The same of the module of a command, which says in one line what is wrong with a file."""
    from opennmt_sd.onmt.plain_errors import show_plainly

    load_safely(module)
    show_plainly()


def _with_some_words(convert: Callable[..., Any]) -> Callable[..., Any]:
    """`convert_to_torch_tensor`: a file without a word of the vocabulary is no file of its own."""

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
