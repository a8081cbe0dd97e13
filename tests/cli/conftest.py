"""Runs a Hydra main in this process: its exit code and what it printed."""

from __future__ import annotations

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


@pytest.fixture
def call(tmp_path: Path, monkeypatch, capsys) -> Callable[..., Done]:
    """``call(main, *overrides)``: as from a shell whose folder is ``tmp_path``."""
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(tmp_path)

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
