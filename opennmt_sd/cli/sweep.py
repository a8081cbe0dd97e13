"""A sweep: one folder for all of its runs, a table of what came out, and an end by a signal."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from opennmt_sd import atomic
from opennmt_sd.cli.errors import check_name
from opennmt_sd.cli.ranks import say
from opennmt_sd.config.checks import ConfigError

TABLE = "summary.csv"

log = logging.getLogger(__name__)


class Sweep(Callback):
    """Hydra's callback of the trainers' commands.

    Before Hydra makes any folder, the run's name is checked.
    """

    current: Sweep | None = None  # the one of this process, if it runs a sweep

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        Sweep.current = None
        _check(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        _check(config)
        self.folder, self.direction = Path(str(config.hydra.sweep.dir)), str(config.direction)
        # Each run has a configuration of its own, and an experiment a name: the folder is one.
        quoted = str(self.folder).replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config), open_dict(config):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
        self.received = 0
        self._before: dict[int, Any] = {}
        if "joblib" in str(config.hydra.launcher.get("_target_", "")):
            self._before = {number: signal.signal(number, self._pass_on)
                            for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
        Sweep.current = self

    def __getstate__(self) -> dict[str, Any]:
        return {}  # handlers of signals do not go to another process

    def _pass_on(self, number: int, frame: Any) -> None:  # noqa: ARG002
        """Let the runs of other processes write their checkpoints, and wait for them."""
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
        for child in multiprocessing.active_children():
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)

    def end(self) -> None:
        """Write the table, and say which run is the best."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        rows = table(self.folder)
        if not rows:
            return
        write(rows, self.folder / TABLE)
        score = next((name for row in rows for name in row if name.startswith("valid/")), None)
        scored = [row for row in rows if score in row]
        if score is None or not scored:
            log.info(f"No run has a score; the table: {self.folder / TABLE}")
            return
        sign = 1 if self.direction == "minimize" else -1
        best = min(scored, key=lambda row: sign * float(row[score]))
        what = " ".join(f"{k}={best[k]}" for k in varied(rows) if k in best)
        log.info(
            f"Best of {len(rows)} runs, {len(rows) - len(scored)} of them without a score: "
            f"{score} {float(best[score]):.5g}: {what or 'as configured'}: "
            f"{self.folder / best['run']}. The table: {self.folder / TABLE}"
        )


def _check(config: DictConfig) -> None:
    try:
        check_name(config)
    except OmegaConfBaseException:
        pass  # Hydra meets it when it makes the folder
    except ConfigError as error:  # of a callback Hydra takes other errors for a warning
        say(str(config.hydra.job.name), str(error))
        raise SystemExit(2) from None


def table(folder: Path) -> list[dict[str, Any]]:
    """Read what was set and what came out in each run of a sweep's folder, a row a run."""
    rows = []
    for place in sorted(folder.glob("*/.hydra/overrides.yaml"), key=_natural):
        run = place.parent.parent
        parsed = OverridesParser.create().parse_overrides(list(OmegaConf.load(place)))
        row: dict[str, Any] = {"run": run.name}
        row |= {each.get_key_element(): each.get_value_element_as_str() for each in parsed}
        result = run / "result.json"
        if result.exists():
            row |= json.loads(result.read_text(encoding="utf-8"))
        rows.append(row)
    return rows


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a table of rows with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic.writer(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def varied(rows: list[dict[str, Any]]) -> list[str]:
    """List the settings in which runs differ."""
    settings = dict.fromkeys(name for row in rows for name in row if "/" not in name)
    return [
        name for name in settings
        if name not in ("run", "update") and len({row.get(name) for row in rows}) > 1
    ]  # fmt: skip


def _natural(place: Path) -> tuple[int, str]:
    name = place.parent.parent.name
    return (int(name) if name.isdecimal() else -1, name)
