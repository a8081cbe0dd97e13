"""The folder of a quickstart: the configs in it, and its newest checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import opennmt_sd
from opennmt_sd import atomic

CONF = Path(opennmt_sd.__file__).parent / "conf" / "onmt"
TRAIN_CONFIG, TRANSLATE_CONFIG = "quickstart.yaml", "quickstart_translate.yaml"
# Settings that say where, not what: they may differ between two runs of one training.
PLACES = {"data", "src_vocab", "tgt_vocab", "save_data", "save_model"}


class QuickstartError(Exception):
    """The quickstart cannot go on; the text says why and what to do."""


class UnusableError(QuickstartError):
    """It cannot begin: no time was spent."""


def make_folder(folder: Path) -> None:
    """Make the folder, where it is missing.

    Raises:
        UnusableError: it cannot be made, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableError(
            f"{folder} cannot be made ({error.strerror}): name another --dir"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UnusableError(f"you may not write into {folder}: name another --dir")


def write_configs(folder: Path, settings: dict[str, Any]) -> None:
    """Write the two YAML files that the commands read, complete or not at all.

    Raises:
        QuickstartError: `folder` holds a training that was begun with other settings.
    """
    import yaml  # type: ignore[import-untyped]  # it ships no types

    config = folder / TRAIN_CONFIG
    if config.exists() and _checkpoints(folder):
        try:
            before = yaml.safe_load(read(config))
            changed = _changed(before, settings)
        except (yaml.YAMLError, AttributeError):
            changed = [f"{config.name} cannot be read"]
        if changed:
            raise UnusableError(
                f"{folder} holds a training that was begun with other settings "
                f"({'; '.join(changed)}): name another --dir, or remove that folder"
            )
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000)
    head = "# conf/onmt/quickstart.yaml with its paths filled in; the comments are there.\n"
    atomic.write_text(config, head + text)
    atomic.write_text(folder / TRANSLATE_CONFIG, read(CONF / TRANSLATE_CONFIG))


def newest_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """Step and path of the newest checkpoint in `folder` that is whole; says what it passes over.

    OpenNMT-py writes a checkpoint in place, so a run that is stopped can leave half a file.
    """
    from opennmt_sd.archive import is_whole  # late: it imports torch

    for step, path in sorted(_checkpoints(folder), reverse=True):
        if is_whole(path):
            return step, path
        print(f"  {path} is incomplete or damaged: passed over")
    return None


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    named = ((re.fullmatch(r"model_step_(\d+)\.pt", p.name), p) for p in folder.iterdir())
    return [(int(match[1]), path) for match, path in named if match]


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = sorted((before.keys() | now.keys()) - PLACES)
    return [
        f"{key}: {before.get(key)} there, {now.get(key)} here"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
