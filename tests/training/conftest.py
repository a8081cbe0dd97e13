"""A trainer over the fake task, and a comparison of everything a checkpoint holds."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from opennmt_sd.training.loggers import CSV, read_csv
from opennmt_sd.training.loop import Trainer
from opennmt_sd.training.outcome import Outcome
from opennmt_sd.training.position import Plan
from opennmt_sd.training.recipe import Recipe
from opennmt_sd.training.reports import METRICS
from opennmt_sd.training.resuming import LAST


def _load(name: str) -> ModuleType:
    """A helper beside this file: pytest's importlib mode puts no folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fake = _load("fake")

RECIPES = {
    "sgd": Recipe(lr=0.5, clip=0.25, momentum=0.9),
    "nt_asgd": Recipe(lr=3.0, non_monotone=0),
    "adam": Recipe("adam", lr=0.01, weight_decay=0.01),
}


class Run:
    """One training in a folder, with a fresh task."""

    def __init__(self, folder: Path, recipe: str = "sgd", **plan: Any) -> None:
        self.task = fake.FakeTask()
        self.folder = folder
        self.trainer = Trainer(
            self.task,
            fabric=Fabric(accelerator="cpu", devices=1),
            recipe=RECIPES[recipe],
            plan=Plan(**{"epochs": 4, "log_every": 2, "seed": 3, **plan}),
            folder=folder,
            loggers=[CSV(folder / METRICS)],
            config={"optim": recipe},
            constants={"width": fake.D},
        )

    def go(self, resume: bool = False) -> Outcome:
        if resume:
            self.trainer.resume(self.folder / LAST)
        return self.trainer.run()

    def last(self) -> dict[str, Any]:
        return torch.load(self.folder / LAST, weights_only=True)

    def speedless(self) -> list[list[str]]:
        """The cells of the file as they are written, without the speeds."""
        with open(self.folder / METRICS, newline="") as file:
            rows = list(csv.reader(file))
        speeds = {i for i, name in enumerate(rows[0]) if name.endswith("_per_s")}
        return [[cell for i, cell in enumerate(row) if i not in speeds] for row in rows]

    def rows(self) -> list[dict[str, float]]:
        """The figures, without the speeds."""
        return [
            {name: value for name, value in row.items() if not name.endswith("_per_s")}
            for row in read_csv(self.folder / METRICS)
        ]


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two checkpoints are not equal, bit for bit."""
    if type(a) is not type(b):
        return [f"{place}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [place]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{place}: keys {a.keys() ^ b.keys()}"]
        return [line for key in a for line in differences(a[key], b[key], f"{place}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{place}: {len(a)} and {len(b)} entries"]
        pairs = enumerate(zip(a, b))
        return [line for i, (x, y) in pairs for line in differences(x, y, f"{place}[{i}]")]
    return [] if a == b else [f"{place}: {a} and {b}"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """``run("name", recipe, **plan)``: a training in the folder ``name``."""
    return lambda name, recipe="sgd", **plan: Run(tmp_path / name, recipe, **plan)


@pytest.fixture(name="differences")
def _differences() -> Callable[..., list[str]]:
    return differences
