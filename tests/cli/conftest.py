"""Runs a Hydra main in this process: its exit code and what it printed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "work"


@pytest.fixture
def tmp_path(_place: Path) -> Path:
    """An empty folder, of one path for all tests: what ``once`` keeps holds that path."""
    shutil.rmtree(_place, ignore_errors=True)
    _place.mkdir()
    return _place


@pytest.fixture
def drawn_curves() -> None:
    """For a test of ``curves.png``, which takes longer than a tiny training: it is really drawn."""


@pytest.fixture
def call(tmp_path: Path, monkeypatch, capsys, request) -> Callable[..., Done]:
    """``call(main, *overrides)``: as from a shell whose folder is ``tmp_path``."""
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from opennmt_sd.recipes import training

    get_mode = Hydra.get_mode

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> object:
        """Compose the configuration for its ``hydra.mode``, as Hydra does before it composes it
        again, where that may be other than None: the groups of searches alone set it."""
        may_be_set = any(word.startswith(("hparams_search", "hydra")) for word in overrides)
        return get_mode(self, config_name, overrides) if may_be_set else None

    monkeypatch.setattr(Hydra, "get_mode", mode)  # which takes half of a test's time
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no test pulls the plug
    monkeypatch.chdir(tmp_path)
    if "drawn_curves" not in request.fixturenames:
        monkeypatch.setattr(training, "plot_curves", lambda metrics, picture, **_: picture.touch())

    def run(main: Callable[[], None], *overrides: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["command", *overrides])
        GlobalHydra.instance().clear()
        code = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def _kept() -> dict[object, tuple[Done, Path]]:
    return {}


@pytest.fixture
def once(call, tmp_path: Path, tmp_path_factory, _kept) -> Callable[..., Done]:
    """``once(main, *overrides)``: as ``call``, of what a test begins with and must end well.

    Where another test has done the same in a folder with the same files, it is not done again: the
    folder is brought to the state that it had afterwards.
    """

    def run(main: Callable[[], None], *overrides: str) -> Done:
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        key = main.__module__, overrides, frozenset(files.items())
        if key in _kept:
            shutil.copytree(_kept[key][1], tmp_path, dirs_exist_ok=True)
        else:
            done = call(main, *overrides)
            assert done.code == 0, done.err
            copy = tmp_path_factory.mktemp("kept")
            _kept[key] = done, shutil.copytree(tmp_path, copy, dirs_exist_ok=True)
        return _kept[key][0]

    return run
