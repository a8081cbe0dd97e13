"""What was measured outlives a process; a file that cannot be used costs its choices alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from opennmt_sd.ops.calibration import cache_file
from opennmt_sd.ops.calibration.trial import Times

TIMES = Times(2.0, 1.0)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_file._warn.cache_clear()
    return tmp_path


@pytest.fixture
def file(home: Path) -> Path:
    return home / "opennmt_sd" / "calibration-1.json"


def test_written_and_read(file: Path) -> None:
    assert cache_file.read() == {}
    cache_file.add("a", TIMES)
    cache_file.add("b", Times(1.0, 3.0))
    assert cache_file.path() == file
    assert cache_file.read() == {"a": TIMES, "b": Times(1.0, 3.0)}
    assert [TIMES.better, Times(1.0, 3.0).better] == [True, False]
    assert sorted(p.name for p in file.parent.iterdir()) == [file.name, "calibration-1.lock"]


@pytest.mark.parametrize("folder", ["", "relative"])
def test_without_a_cache_folder_the_home_has_one(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    cache_file.add("a", TIMES)
    assert cache_file.path() == tmp_path / "me/.cache/opennmt_sd/calibration-1.json"
    assert cache_file.read() == {"a": TIMES}


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    cache_file.add("a", TIMES)
    assert cache_file.read() == {}


BROKEN = {
    "cut": '{"format": 1, "measured": {"a": [2.0,',
    "empty": "",
    "no text": b"\xff\xfe\x00",
    "another": '["a"]',
    "version": '{"format": 2, "measured": {"a": [2.0, 1.0]}}',
    "values": '{"format": 1, "measured": {"a": true}}',
    "numbers": '{"format": 1, "measured": {"a": [2.0]}}',
    "negative": '{"format": 1, "measured": {"a": [2.0, -1.0]}}',
    "list": '{"format": 1, "measured": []}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_damaged(content: str | bytes, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line; what it held is lost, and the next choice makes a whole file of it again."""
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cache_file.read() == cache_file.read() == {}
    (line,) = caplog.messages
    assert line.startswith(f"{file} cannot be used (")
    assert line.endswith("): what it held is measured anew")
    cache_file.add("b", TIMES)
    assert cache_file.read() == {"b": TIMES}


@pytest.mark.timeout(30)  # to open a pipe would wait for ever
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
@pytest.mark.parametrize("suffix", [".json", ".lock"])
def test_something_else_in_its_place(
    make: Callable[[Path], None], suffix: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    make(file.with_suffix(suffix))
    cache_file.add("a", TIMES)
    cache_file.add("a", TIMES)
    (line,) = caplog.messages
    assert line == (
        f"{file} cannot be written (it is no ordinary file): what is chosen now holds for this "
        "process"
    )
    assert cache_file.read() == {}


def test_a_file_in_the_folders_place(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.write_text("")
    cache_file.add("a", TIMES)
    assert cache_file.read() == {}
    (line,) = caplog.messages
    assert line.startswith(f"{file} cannot be written (")


def test_a_folder_that_may_not_be_looked_into(
    monkeypatch: pytest.MonkeyPatch, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is root may look into any."""

    def refused(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    assert cache_file.read() == {}
    cache_file.add("a", TIMES)
    assert [line.partition(" cannot be ")[2][:4] for line in caplog.messages] == ["used", "writ"]
    assert not os.path.exists(file)


WRITER = """
import sys
from opennmt_sd.ops.calibration import cache_file
from opennmt_sd.ops.calibration.trial import Times
for n in range(20):
    cache_file.add(f"{sys.argv[1]} {n}", Times(2.0, 1.0))
"""


def test_two_processes_at_once(file: Path, run_warm: Callable[..., Any], tmp_path: Path) -> None:
    """No choice is lost, and the file is whole all along."""
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_warm, str(script), name) for name in "ab"]
        for run in runs:
            assert run.result().stderr == ""
    assert cache_file.read().keys() == {f"{name} {n}" for name in "ab" for n in range(20)}


def test_one_that_never_lets_go(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_file, "PATIENCE", 0.05)
    file.parent.mkdir()
    with cache_file._locked(file.with_suffix(".lock")):
        cache_file.add("a", TIMES)
    assert "cannot be written (another process holds it)" in caplog.text
    assert cache_file.read() == {}
