"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opennmt_sd import atomic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("before")
    return path


def test_what_is_written_takes_the_name(path: Path) -> None:
    atomic.write_text(path, "ä\r\nb\n")
    assert path.read_bytes() == "ä\r\nb\n".encode()
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_failure_on_the_way_leaves_the_file_of_before_and_nothing_else(path, error) -> None:
    def fail() -> None:
        with atomic.writer(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(path.parent) == ["file"]


def test_it_is_on_the_disk_before_it_takes_the_name(path: Path, monkeypatch) -> None:
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append("replace"), replace(*names)))
    atomic.write_text(path, "after")
    assert seen == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_a_full_disk(path: Path, small_files) -> None:
    with small_files(100), pytest.raises(OSError, match="File too large") as error:
        atomic.write_text(path, "x" * 1000)
    assert error.value.filename == str(path)
    assert path.read_text() == "before"
    assert os.listdir(path.parent) == ["file"]


def test_permissions_and_links_stay(path: Path) -> None:
    path.chmod(0o600)
    link = path.with_name("link")
    link.symlink_to("file")
    atomic.write_text(link, "after")
    assert link.is_symlink()
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_device_is_written_straight_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic.write_text(fifo, "text")
        assert os.read(descriptor, 10) == b"text"
    finally:
        os.close(descriptor)
    assert os.listdir(tmp_path) == ["fifo"]


def test_copy(path: Path) -> None:
    other = path.with_name("other")
    atomic.copy(path, other)
    assert other.read_text() == "before"
