"""Export: a stock checkpoint or a clear text, and never half a file."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.onmt import export as module
from opennmt_sd.onmt.checkpoint import CHOICES, CheckpointError, read
from opennmt_sd.onmt.export import ExportError, export

OPTIONS = {
    "encoder_type": "sd_brnn",
    "decoder_type": "sd_rnn",
    "brnn": True,
    "dropout": [0.3],
    "sd_space": "structured",
    "sd_output_dropout": None,
    "_all_transform": {"a"},
}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(name: str = "model.pt", **options: Any) -> Path:
        weight = torch.arange(6.0).view(2, 3)
        content = {
            "model": {"encoder.rnn.weight_ih_l0": weight, "decoder.embeddings": weight},
            "generator": {"weight": weight, "bias": torch.ones(2)},
            "vocab": {"src": ["a"], "tgt": ["b"]},
            "opt": Namespace(**{**OPTIONS, **options}),
            "optim": {"training_step": 7},
            CHOICES: {"recurrence": True},
        }
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_only_the_options_change(save: Callable[..., Path], tmp_path: Path) -> None:
    source, target = save(), tmp_path / "stock.pt"
    before = source.read_bytes()
    export(source, target)
    assert source.read_bytes() == before
    old, new = read(source), read(target)
    assert vars(new["opt"]) == {
        "encoder_type": "brnn",
        "decoder_type": "rnn",
        "brnn": True,
        "dropout": [0.3],
        "_all_transform": {"a"},
    }
    assert [*new, CHOICES] == [*old]
    assert new["vocab"] == old["vocab"]
    assert new["optim"] == {"training_step": 7}
    for part in ("model", "generator"):
        assert list(new[part]) == list(old[part])
        for key in old[part]:
            assert torch.equal(new[part][key], old[part][key])
    model = new["model"]
    shared = {tensor.data_ptr() for tensor in (*model.values(), new["generator"]["weight"])}
    assert len(shared) == 1, "tied weights came apart"


@pytest.mark.parametrize(
    ("types", "stock"),
    [(("sd_rnn", "sd_rnn"), ("rnn", "rnn")), (("sd_brnn", "rnn"), ("brnn", "rnn")),
     (("brnn", "sd_rnn"), ("brnn", "rnn"))],
)  # fmt: skip
def test_every_type(
    save: Callable[..., Path], tmp_path: Path, types: tuple[str, str], stock: tuple[str, str]
) -> None:
    source, target = save(encoder_type=types[0], decoder_type=types[1]), tmp_path / "stock.pt"
    export(source, target)
    opt = read(target)["opt"]
    assert (opt.encoder_type, opt.decoder_type) == stock


def test_the_file_is_as_readable_as_any(save: Callable[..., Path], tmp_path: Path) -> None:
    source, target = save(), tmp_path / "stock.pt"
    export(source, target)
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(source.stat().st_mode)


def test_an_output_that_exists_needs_force(save: Callable[..., Path], tmp_path: Path) -> None:
    source, target = save(), tmp_path / "stock.pt"
    target.write_text("precious")
    with pytest.raises(ExportError, match="exists already: --force overwrites it"):
        export(source, target)
    assert target.read_text() == "precious"
    export(source, target, force=True)
    assert read(target)["opt"].encoder_type == "brnn"


@pytest.mark.parametrize("force", [False, True])
def test_never_onto_itself(save: Callable[..., Path], tmp_path: Path, force: bool) -> None:
    source = save()
    link = tmp_path / "link.pt"
    link.symlink_to(source)
    for target in (source, link, tmp_path / "." / "model.pt"):
        with pytest.raises(ExportError, match="this is the checkpoint itself: give another output"):
            export(source, target, force=force)


def test_a_checkpoint_of_stock_needs_none(save: Callable[..., Path], tmp_path: Path) -> None:
    source = save(encoder_type="brnn", decoder_type="rnn")
    with pytest.raises(ExportError, match="needs no export: it was trained with encoder_type brnn"):
        export(source, tmp_path / "stock.pt")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def _foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def _tensor(path: Path) -> None:
    torch.save(torch.ones(1), path)


def _code(path: Path) -> None:
    torch.save({"opt": Path, "vocab": {}}, path)  # a class: weights_only must refuse it


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        weight = max(file.infolist(), key=lambda entry: entry.file_size)
    content[weight.header_offset + weight.file_size] ^= 1  # within, whatever the header's length
    path.write_bytes(content)


def _scrambled(path: Path) -> None:
    # A pickle of before torch's zip files: a dictionary with a dictionary as a key.
    path.write_bytes(b"\x80\x02}}Ns.")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (Path.unlink, "model.pt: no such file"),
        (_truncated, "model.pt: not readable as a checkpoint: the file is damaged, incomplete"),
        (lambda path: path.write_bytes(b""), "model.pt: not readable as a checkpoint"),
        (lambda path: path.write_text("hello"), "model.pt: not readable as a checkpoint"),
        (_foreign, "model.pt: not an OpenNMT-py checkpoint: it has no model options"),
        (_tensor, "model.pt: not an OpenNMT-py checkpoint"),
        (_code, "model.pt: not "),
        (_folder, "model.pt: this is a folder: give a checkpoint file"),
        (_flipped, "model.pt: damaged: its bytes do not agree with their checksums"),
        (
            _scrambled,
            "model.pt: not readable as a checkpoint: the file is damaged, incomplete or "
            "of another kind (TypeError: ",
        ),
    ],
    ids=[
        "missing",
        "truncated",
        "empty",
        "text",
        "foreign",
        "tensor",
        "code",
        "folder",
        "flipped",
        "scrambled",
    ],
)
def test_what_is_no_checkpoint(
    save: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], Any], text: str
) -> None:
    source = save()
    spoil(source)
    with pytest.raises(CheckpointError, match=re.escape(text)):
        export(source, tmp_path / "stock.pt")
    assert {path.name for path in tmp_path.iterdir()} <= {"model.pt"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes of that kind")
@pytest.mark.parametrize("force", [False, True])
def test_never_in_the_place_of_a_device(
    save: Callable[..., Path], tmp_path: Path, force: bool
) -> None:
    """As root, `-o /dev/null --force` would break the machine."""
    target = tmp_path / "pipe"
    os.mkfifo(target)
    with pytest.raises(ExportError, match="this is a device or a pipe: give a file"):
        export(save(), target, force=force)
    assert target.is_fifo()


def test_a_folder_that_is_not_there(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written: No such file or directory"):
        export(save(), tmp_path / "none" / "stock.pt")


def test_a_failed_write_leaves_what_was_there(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = save(), tmp_path / "stock.pt"
    target.write_text("precious")

    def half(content: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(module.torch, "save", half)
    with pytest.raises(ExportError, match="cannot be written: No space left on device"):
        export(source, target, force=True)
    assert target.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "stock.pt"}


@pytest.mark.parametrize("mmap", [False, True])
def test_old_files_are_read_too(tmp_path: Path, mmap: bool) -> None:
    """Those of before torch 1.6 are no zip files, and cannot be mapped."""
    path = tmp_path / "old.pt"
    content = {"model": {"w": torch.ones(2)}, "vocab": {}, "opt": Namespace(**OPTIONS)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read(path, mmap=mmap)["model"]["w"], torch.ones(2))
