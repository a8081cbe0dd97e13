"""Checkpoints: written whole or not at all, read with one clear text for whatever is wrong."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opennmt_sd import archive, atomic

FORMAT = 1
KIND = "opennmt_sd training"


class CheckpointError(Exception):
    """A checkpoint that cannot be read or resumed from. The text says what to do."""


class SaveError(Exception):
    """A checkpoint that cannot be written. The text says what to do."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whatever happens on the way, the file before it stays as it was.

    Args:
        path: where; its folder must be there.
        state: tensors and plain values, loadable with ``weights_only=True``.

    Raises:
        SaveError: the disk is full, say. Nothing is left behind.
    """
    try:
        with atomic.writer(path) as file:
            torch.save({"kind": KIND, "format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch turns some of the first into the second
        kept = "the checkpoint before it is untouched" if path.exists() else "there was none before"
        raise SaveError(
            f"{path} cannot be written: {archive.reason(error)}; {kept}. Is the disk full, or over "
            "its quota? Make room, then go on with resume=auto"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU.

    Raises:
        CheckpointError: no such file; cut short or damaged; of another kind or a newer format.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name a file in it, such as {path / 'last.pt'}")
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint{_others(path)}")
    if not path.is_file():  # a FIFO: to open it would wait for ever
        raise CheckpointError(
            f"{path} is no ordinary file: name a best.pt or last.pt that this trainer wrote"
        )
    if not zipfile.is_zipfile(path) or not archive.is_whole(path):
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is cut short, damaged or no checkpoint: its "
            f"bytes do not agree with their checksums. Take another one{_others(path)}"
        )
    try:
        state = archive.load(path)
    except Exception as error:  # a foreign pickle can raise anything
        raise CheckpointError(
            f"{path} is not a checkpoint of this trainer: {archive.reason(error)}. Name a best.pt "
            "or last.pt that it wrote"
        ) from error
    if (
        not isinstance(state, dict)
        or state.get("kind") != KIND
        or not isinstance(state.get("format"), int)
    ):
        raise CheckpointError(
            f"{path} is not a checkpoint of this trainer: it holds other things. Name a best.pt or "
            "last.pt that it wrote"
        )
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}, this version of opennmt_sd reads up to {FORMAT}:"
            " update opennmt_sd"
        )
    return state


@contextmanager
def understood(path: Path | str) -> Iterator[None]:
    """Take what a checkpoint holds; whatever does not fit is one text.

    Raises:
        CheckpointError: an entry is missing or of another kind than this trainer writes.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"it has no entry {error}" if isinstance(error, KeyError) else archive.reason(error)
        raise CheckpointError(
            f"{path} does not hold what this trainer writes: {what}. It was made by hand, by "
            "another program or another version: name a best.pt or last.pt of this one"
        ) from error


def in_folder(path: Path, name: str) -> Path:
    """Give the file of this name, where a folder is named in place of a checkpoint in it."""
    return path / name if path.is_dir() else path


def weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights to evaluate and use: averaged where the training averages."""
    return {**state["model"], **(state["averaging"] or {}).get("average", {})}


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    ignore: Iterable[str] = (),
    added: Mapping[str, Any] | None = None,
) -> list[str]:
    """List where two nested configurations differ: ``model.hidden: 650 there, 200 here``.

    Args:
        ignore: dotted names that may differ, and all below them.
        added: dotted names that came later, and what holds where they are not.
    """
    saved, given = {**(added or {}), **_flat(before)}, {**(added or {}), **_flat(now)}
    return [
        f"{key}: {_contrast(saved.get(key, 'nothing'), given.get(key, 'nothing'))}"
        for key in sorted(saved.keys() | given.keys())
        if saved.get(key) != given.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in ignore)
    ]


def plain(value: Any) -> Any:
    """Copy to the CPU, sharing no memory: a view would take all of its storage along."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(inner) for inner in value)
    return value


def _contrast(saved: Any, given: Any) -> str:
    """Both values in a few words: of a long list its length, or its first entry that differs."""
    if isinstance(saved, list) and isinstance(given, list) and max(len(saved), len(given)) > 9:
        if len(saved) != len(given):
            return f"{len(saved):,} entries there, {len(given):,} here"
        i = next(i for i in range(len(saved)) if saved[i] != given[i])
        return f"entry {i + 1:,} is {saved[i]!r} there, {given[i]!r} here"
    return f"{_short(saved)} there, {_short(given)} here"


def _short(value: Any) -> str:
    long = isinstance(value, list) and len(value) > 9
    return f"{len(value):,} entries" if long else str(value)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        flat.update(_flat(inner, f"{name}.") if isinstance(inner, Mapping) else {name: inner})
    return flat


def _others(path: Path) -> str:
    """Names the whole checkpoints beside one that does not serve."""
    files = (p for p in path.parent.glob("*.pt") if p != path and p.is_file())
    found = sorted(p.name for p in files if archive.is_whole(p))
    return f"; beside it there is {' and '.join(found)}" if found else ""
