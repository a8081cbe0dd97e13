"""Where figures go: a CSV file always; TensorBoard, W&B and MLflow where they are chosen.

A tracker's package is imported when its class is made, not before.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from opennmt_sd import atomic


class LoggerError(Exception):
    """A tracker cannot be used. The text says what to do."""


class Logger(Protocol):
    """Takes figures by update. Used on one process only, the first."""

    def start(self, update: int, config: Mapping[str, Any]) -> None:
        """Begin, or go on behind ``update``: what was logged after it is void."""
        ...

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        """Take figures, named ``train/loss`` and the like."""
        ...

    def close(self, failed: bool) -> None:
        """End."""
        ...


class CSV:
    """One row a call, one column a figure, in ``path``; a new figure makes a new column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = ["update"]

    def start(self, update: int, config: Mapping[str, Any]) -> None:  # noqa: ARG002 - has its file
        if self.path.exists():
            kept = [row for row in read_csv(self.path) if row["update"] <= update]
            self.rows = [dict(row) for row in kept]
        self.columns = list(dict.fromkeys(["update", *(name for row in self.rows for name in row)]))
        self._rewrite()

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        row = {"update": update, **figures}
        for place in range(len(self.rows) - 1, -1, -1):  # a resumed training does a part again
            if self.rows[place]["update"] != update:
                break
            if self.rows[place].keys() == row.keys():
                self.rows[place] = row
                self._rewrite()
                return
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def close(self, failed: bool) -> None:
        """Do nothing: no file is open between two rows."""

    def _rewrite(self) -> None:
        with atomic.writer(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


def read_csv(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics file without empty cells; one that was cut short is left out."""
    with open(path, newline="", encoding="utf-8") as file:
        found = []
        for row in csv.DictReader(file):
            try:
                figures = {key: float(cell) for key, cell in row.items() if key and cell}
                found.append({**figures, "update": int(figures["update"])})
            except (ValueError, KeyError):
                continue
    return found


class TensorBoard:
    """Writes event files into ``folder``: ``tensorboard --logdir FOLDER`` shows them."""

    requires = "tensorboard"

    def __init__(self, folder: str) -> None:
        require(self.requires, "tensorboard")
        self.folder = folder

    def start(self, update: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=update + 1 if update else None)
        if not update:
            self.writer.add_text("config", f"```\n{json.dumps(config, indent=2)}\n```")

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, update)

    def close(self, failed: bool) -> None:  # noqa: ARG002 - event files know no failure
        self.writer.close()


class WandB:
    """Weights & Biases: keywords go to ``wandb.init``. A resumed training goes on in its run.

    Args:
        folder: where wandb writes, and where the run's id is kept for a resume.
    """

    requires = "wandb"

    def __init__(self, folder: str, **init: Any) -> None:
        require(self.requires, "wandb")
        self.folder, self.init = Path(folder), init

    def start(self, update: int, config: Mapping[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found,unused-ignore]

        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "run_id"
        known = note.read_text(encoding="utf-8").strip() if update and note.exists() else None
        self.run = wandb.init(
            dir=str(self.folder), config=dict(config), id=known, resume="allow", **self.init
        )
        atomic.write_text(note, self.run.id)

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=update)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class MLflow:
    """MLflow: a run in an experiment. A resumed training goes on in its run.

    Args:
        folder: where the run's id is kept for a resume.
        tracking_uri: a server or a folder; None takes MLflow's own default.
        experiment, run_name: names to show.
    """

    requires = "mlflow"

    def __init__(
        self,
        folder: str,
        *,
        tracking_uri: str | None = None,
        experiment: str = "opennmt_sd",
        run_name: str | None = None,
    ) -> None:
        require(self.requires, "mlflow")
        self.folder, self.tracking_uri = Path(folder), tracking_uri
        self.experiment, self.run_name = experiment, run_name

    def start(self, update: int, config: Mapping[str, Any]) -> None:
        import mlflow  # type: ignore[import-not-found,unused-ignore]

        self.client: Any = mlflow
        if self.tracking_uri is not None:
            mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_experiment(self.experiment)
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "run_id"
        known = note.read_text(encoding="utf-8").strip() if update and note.exists() else None
        run = mlflow.start_run(run_id=known, run_name=self.run_name)
        atomic.write_text(note, run.info.run_id)
        if known is None:
            mlflow.log_dict(dict(config), "config.json")

    def log(self, update: int, figures: Mapping[str, float]) -> None:
        self.client.log_metrics(dict(figures), step=update)

    def close(self, failed: bool) -> None:
        self.client.end_run("FAILED" if failed else "FINISHED")


TRACKERS = {cls.requires: cls for cls in (TensorBoard, WandB, MLflow)}


def require(package: str, logger: str) -> None:
    """Raise LoggerError, with the remedy, where the package of a tracker is missing."""
    if importlib.util.find_spec(package) is None:
        raise LoggerError(
            f"logger {logger} needs the package {package}, which is not installed: "
            f"pip install {package}, or leave logger={logger} out (metrics.csv is always written)"
        )
