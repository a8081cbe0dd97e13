"""Checkpoints: whole or not at all, and one clear text for whatever is wrong with a file."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from opennmt_sd.training import checkpoint
from opennmt_sd.training.checkpoint import CheckpointError, SaveError

STATE = {
    "model": {"w": torch.arange(5000.0)},
    "averaging": None,
    "position": {"updates": 7},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.write(tmp_path / "last.pt", STATE)
    return tmp_path / "last.pt"


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(path)
    return str(error.value)


def test_what_is_written_is_read(path: Path) -> None:
    state = checkpoint.read(path)
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert state["position"] == {"updates": 7}
    assert os.listdir(path.parent) == ["last.pt"]


def test_a_full_disk_leaves_the_old_one(path: Path, small_files, warm_python) -> None:
    before = path.read_bytes()
    with small_files(4096), pytest.raises(SaveError) as error:
        checkpoint.write(path, {"model": {"w": torch.zeros(9999)}})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.pt"]
    text = str(error.value)
    assert text.startswith(f"{path} cannot be written: ")
    assert text.endswith(
        "; the checkpoint before it is untouched. Is the disk full, or over its quota? Make room, "
        "then go on with resume=auto"
    )


def test_a_full_disk_at_the_first_one(tmp_path: Path, small_files) -> None:
    with small_files(4096), pytest.raises(SaveError, match="there was none before"):
        checkpoint.write(tmp_path / "last.pt", STATE)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fails_to_sync_leaves_the_old_one(path: Path, monkeypatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    before = path.read_bytes()
    with pytest.raises(SaveError, match=r"cannot be written: No space left on device; the checkp"):
        checkpoint.write(path, {})
    assert path.read_bytes() == before


def test_kill_9_in_the_middle_of_a_write_leaves_the_old_one(
    path: Path, small_files, warm_python
) -> None:
    before = path.read_bytes()
    code = (
        "import os, signal, torch\n"
        "from pathlib import Path\n"
        "from opennmt_sd.training import checkpoint\n"
        "class Bomb:\n"  # goes off while the file is being written
        "    def __reduce__(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.write(Path('last.pt'), {'model': {'w': torch.ones(9)}, 'bomb': Bomb()})"
    )
    done = subprocess.run([*warm_python, "-c", code], cwd=path.parent, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["last.pt", "last.pt.partial"]
    checkpoint.write(path, STATE)
    assert os.listdir(path.parent) == ["last.pt"]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_cut_short(path: Path, kept: float) -> None:
    whole = path.read_bytes()
    size = int(len(whole) * kept) if isinstance(kept, float) else kept % len(whole)
    path.write_bytes(whole[:size])
    checkpoint.write(path.with_name("best.pt"), STATE)
    assert refused(path) == (
        f"{path} ({size:,} bytes) is cut short, damaged or no checkpoint: its bytes do not agree "
        "with their checksums. Take another one; beside it there is best.pt"
    )


def test_one_flipped_bit_in_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(5000.0).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert "do not agree with their checksums. Take another one" in refused(path)


def test_missing(path: Path) -> None:
    other = path.with_name("lost.pt")
    assert refused(other) == f"{other}: there is no such checkpoint; beside it there is last.pt"


def test_folder(path: Path) -> None:
    folder = path.parent
    assert refused(folder) == (
        f"{folder} is a folder: name a file in it, such as {folder / 'last.pt'}"
    )


def test_foreign(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, path)
    assert refused(path) == (
        f"{path} is not a checkpoint of this trainer: it holds other things. Name a best.pt or "
        "last.pt that it wrote"
    )
    torch.save({"kind": checkpoint.KIND, "format": "one"}, path)
    assert refused(path).startswith(f"{path} is not a checkpoint of this trainer: it holds other")
    torch.save(torch.nn.Linear(1, 1), path)
    assert refused(path).startswith(f"{path} is not a checkpoint of this trainer: UnpicklingError")


def test_newer(path: Path) -> None:
    torch.save({"kind": checkpoint.KIND, "format": 99}, path)
    assert refused(path) == (
        f"{path} has format 99, this version of opennmt_sd reads up to 1: update opennmt_sd"
    )


def test_weights_are_the_averaged_ones_where_there_are_any() -> None:
    model = {"w": torch.zeros(2), "buffer": torch.ones(1)}
    average = {"w": torch.full((2,), 5.0)}
    found = checkpoint.weights({"model": model, "averaging": {"average": average}})
    assert (found["w"][0], found["buffer"][0]) == (5, 1)
    assert checkpoint.weights({"model": model, "averaging": None}) == model


def test_differences_name_both_values() -> None:
    before = {"model": {"hidden": 650, "p": 0.5}, "data": {"path": "a"}, "seed": 1}
    now = {"model": {"hidden": 200, "p": 0.5}, "data": {"path": "b"}, "new": [1]}
    assert checkpoint.differences(before, now, ignore=("data",)) == [
        "model.hidden: 650 there, 200 here",
        "new: nothing there, [1] here",
        "seed: 1 there, nothing here",
    ]
    assert checkpoint.differences(before, before) == []


def test_differences_do_not_print_long_lists() -> None:
    words = [f"w{i}" for i in range(5000)]
    assert checkpoint.differences({"words": words}, {}) == [
        "words: 5,000 entries there, nothing here"
    ]


def test_plain_takes_no_storage_along() -> None:
    view = torch.zeros(1000, 10)[3]
    copy = checkpoint.plain({"h": [view, (view, None)]})
    assert copy["h"][0].untyped_storage().nbytes() == 40
    assert copy["h"][1][1] is None
