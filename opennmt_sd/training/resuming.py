"""A training that goes on: whether a checkpoint is its own, and what it takes along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opennmt_sd import archive, atomic
from opennmt_sd.training import checkpoint
from opennmt_sd.training.checkpoint import CheckpointError
from opennmt_sd.training.position import Position
from opennmt_sd.training.reports import METRICS

LAST, BEST = "last.pt", "best.pt"


def check_same(
    path: Path, state: Mapping[str, Any], *, config: Mapping[str, Any], may_change: Sequence[str],
    added: Mapping[str, Any], constants: Mapping[str, Any], world_size: int,
) -> None:  # fmt: skip
    """Refuse a checkpoint without the state of a training, or of another training than this.

    Args:
        path, state: where it lies, and what it holds.
        config, may_change, added, constants: of the training that is to go on; see ``Trainer``.
        world_size: how many processes it has.

    Raises:
        CheckpointError: it cannot be gone on from; the text says what differs.
    """
    if "ranks" not in state:
        raise CheckpointError(
            f"{path} holds weights and no state of a training: name a last.pt or best.pt"
        )
    changed = checkpoint.differences(state["config"], config, ignore=may_change, added=added)
    changed += checkpoint.differences(state["constants"], constants, added=added)
    if changed:
        raise CheckpointError(
            f"{path} belongs to a training with other settings:\n  "
            + "\n  ".join(changed)
            + "\nGive it the same ones, or begin anew in another folder"
        )
    if len(state["ranks"]) != world_size:
        raise CheckpointError(
            f"{path} holds the state of {len(state['ranks'])} processes, this run has "
            f"{world_size}: start as many (trainer.devices, or torchrun)"
        )


def best_with(path: Path, at: Position) -> Path:
    """Return the file with the best weights that go with a checkpoint.

    Args:
        path: of the checkpoint.
        at: the position that it holds.

    Raises:
        CheckpointError: they are gone.
    """
    best = path.parent / BEST
    if at.best is None or best.exists():
        return best
    if at.best_update != at.updates:
        raise CheckpointError(
            f"{path} goes with the best weights so far, those of update "
            f"{at.best_update:,}, but there is no {best}: put it there"
        )
    return path  # holds them itself


def take_along(path: Path, best: Path, folder: Path) -> None:
    """Copy what was reached and logged beside a checkpoint to the folder of the training."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in {BEST: best, METRICS: path.parent / METRICS, LAST: path}.items():
        here = folder / name
        # A last.pt of this very folder stays until the next one is written, if it is whole.
        keep = here.exists() and source.parent.samefile(folder)
        if keep and name == LAST:
            keep = archive.is_whole(here)
        if source.exists() and not keep:
            atomic.copy(source, here)
