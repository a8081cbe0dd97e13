"""A plan of runs that are compared by seeds, and the rows and curves that they leave."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from preparing import SourceError

from opennmt_sd import atomic

NEEDED = {"command", "update", "seeds", "settings", "scores"}
FURTHER = {"threads", "devices", "curve", "resumes"}
TABLES = ("settings", "scores", "devices")
CURVE = ["setting", "seed", "update", "seconds", "score"]
ABOUT = ("setting", "seed", "commit", "device", "threads", "update")  # a run; before its scores
SPENT = ("processor_seconds", "seconds", "command")  # behind them
Row = dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        path: of the plan; the rows and the curves lie beside it.
        command: with ``{seed}``, ``{setting}``, ``{folder}``, ``{update}`` and ``{device}``.
        update: when a run ends.
        seeds: of each setting.
        settings: what stands for ``{setting}``, by name.
        scores: what finds each in the output.
        threads: of a run.
        devices: what stands for ``{device}``, by name.
        device: that of the runs.
        curve: what finds an update and its score in the output; None: no curves.
        resumes: whether the command goes on in its folder where it was stopped.
    """

    path: Path
    command: str
    update: int
    seeds: Sequence[int]
    settings: Mapping[str, str]
    scores: Mapping[str, re.Pattern[str]]
    threads: int = 1
    devices: Mapping[str, str] = field(default_factory=lambda: {"cpu": ""})
    device: str = "cpu"
    curve: re.Pattern[str] | None = None
    resumes: bool = False

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Plan:
        """Read a plan.

        Raises:
            SourceError: it is none, or does not have the device.
        """
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} is no YAML: {error}") from None
        keys = set(found) if isinstance(found, dict) else set()
        missing, unknown = NEEDED - keys, keys - NEEDED - FURTHER
        if missing or unknown:
            wrong = [f"lacks {', '.join(sorted(missing))}"] if missing else []
            wrong += [f"has unknown keys {', '.join(map(str, unknown))}"] if unknown else []
            raise SourceError(f"{path} {' and '.join(wrong)}: --help shows a plan")
        found = {key: value for key, value in found.items() if value is not None or key in NEEDED}
        if flat := [key for key in TABLES if not isinstance(found.get(key, {}), dict)]:
            raise SourceError(f"{path}: {flat[0]} needs names with values: --help shows a plan")
        if wrong := [*_wrong_kinds(found)]:
            raise SourceError("\n".join(f"{path}: {fault}" for fault in wrong))
        try:
            found["scores"] = {name: re.compile(of) for name, of in found["scores"].items()}
            found["curve"] = re.compile(found["curve"]) if "curve" in found else None
        except re.error as error:
            key = "scores" if error.pattern in found["scores"].values() else "curve"
            raise SourceError(f"{path}: {key}: {error.pattern}: {error}") from None
        if isinstance(found.get("resumes"), list):
            found["resumes"] = device in found["resumes"]
        plan = cls(path, device=device, **found)
        if faults := [*plan._faults()]:
            raise SourceError("\n".join(f"{path}: {fault}" for fault in faults))
        return plan

    def _faults(self) -> Iterator[str]:
        for of in self.scores.values():
            if of.groups != 1:
                yield f"scores: {of.pattern} needs one group, which is the number"
        if self.curve and {*self.curve.groupindex} != {"update", "score"}:
            yield f"curve: {self.curve.pattern} needs the groups (?P<update>...) and (?P<score>...)"
        for name in ("scores", "settings"):
            if not getattr(self, name):
                yield f"{name}: there is none"
        if taken := {*ABOUT, *SPENT} & {*self.scores}:
            yield f"scores: {', '.join(sorted(taken))} is a column's name already: take another"
        if self.device not in self.devices:
            yield f"devices: there is no {self.device}: it has {', '.join(self.devices)}"
        try:
            self.command.format(seed=0, setting="", folder="", update=0, device="")
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            yield (f"command: {error} is not {{seed}}, {{setting}}, {{folder}}, {{update}} or "
                   "{device}; a brace of bash's is written twice")  # fmt: skip

    @property
    def name(self) -> str:
        """Return what its files are named by: other devices than the CPU have theirs."""
        return self.path.stem + ("" if self.device == "cpu" else f"_{self.device}")

    @property
    def csv(self) -> Path:
        """Return where the rows are."""
        return self.path.with_name(f"{self.name}.csv")

    @property
    def curves(self) -> Path:
        """Return where the curves are."""
        return self.path.with_name(f"{self.name}_curves.csv")

    @property
    def fields(self) -> list[str]:
        """Return the columns."""
        return [*ABOUT, *self.scores, *SPENT]

    def line(self, setting: str, seed: int, folder: str) -> str:
        """Return the command of a run."""
        return self.command.format(
            seed=seed, setting=self.settings[setting], folder=folder, update=self.update,
            device=self.devices[self.device],
        )  # fmt: skip

    def way(self, setting: str, seed: int) -> Row:
        """Return how a run is made: what all of it, and its row, must agree with."""
        return {"command": self.line(setting, seed, "FOLDER"), "update": str(self.update),
                "threads": str(self.threads)}  # fmt: skip

    def rows(self) -> list[Row]:
        """Return the rows that there are.

        Raises:
            SourceError: their columns are others, a score is no number, or a run stands twice.
        """
        rows, seen = _read(self.csv, self.fields), set()
        for row in rows:
            odd = [f"has no number as {name}: {row[name]!r}"
                   for name in self.scores if not is_number(row[name])]  # fmt: skip
            odd += ["stands twice"] if _run(row) in seen else []
            if odd:
                raise SourceError(f"{self.csv}: the row of {_named(row)} {odd[0]}")
            seen.add(_run(row))
        return rows

    def strangers(self) -> str | None:
        """Tell which rows of the plan's runs were made in another way than it says now."""
        runs = {(name, str(seed)): seed for seed in self.seeds for name in self.settings}
        found = []
        for row in self.rows():
            if _run(row) in runs:
                wanted = self.way(row["setting"], runs[_run(row)])
                other = [name for name, value in wanted.items() if row[name] != value]
                found += [f"{_named(row)} (another {', '.join(other)})"] if other else []
        return (
            f"{self.csv} has rows that this plan did not make: {'; '.join(found)}"
            if found
            else None
        )

    def points(self) -> list[Row]:
        """Return the points of all curves. Raises: SourceError: their columns are others."""
        return _read(self.curves, CURVE)

    def add(self, row: Mapping[str, Any], curve: Sequence[Row] = ()) -> None:
        """Write a run's row and its curve to the others, in the order of the plan.

        The curve comes first: what has a row has all of its curve.
        """
        new = {name: str(value) for name, value in row.items()}
        run = (new["setting"], new["seed"])
        with locked(self.csv.with_suffix(".lock"), wait=True):
            if curve:
                old = [point for point in self.points() if _run(point) != run]
                points = [{**point, "setting": run[0], "seed": run[1]} for point in curve]
                self._write(self.curves, CURVE, [*old, *points])
            self._write(self.csv, self.fields, [*self.rows(), new])

    def _write(self, path: Path, fields: Sequence[str], rows: Sequence[Row]) -> None:
        runs = [(name, str(seed)) for seed in self.seeds for name in self.settings]
        known = {run: i for i, run in enumerate(runs)}
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: known.get(_run(row), len(known))))
        atomic.write_text(path, text.getvalue())

    def values(self, setting: str, score: str) -> dict[int, float]:
        """Return a score of a setting by seed, of the plan's seeds."""
        found = {row["seed"]: float(row[score])
                 for row in self.rows() if row["setting"] == setting}  # fmt: skip
        return {seed: found[str(seed)] for seed in self.seeds if str(seed) in found}


def is_number(text: str) -> bool:
    """Tell whether a text is a number, and no infinity and no NaN."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _wrong_kinds(found: Mapping[str, Any]) -> Iterator[str]:
    """Tell what in a plan is of another kind than it must be."""
    for key in ("command", "curve"):
        if not isinstance(found.get(key, ""), str):
            yield f"{key}: {found[key]} is no text"
    for key in ("update", "threads"):
        if type(found.get(key, 1)) is not int or found.get(key, 1) < 1:
            yield f"{key}: {found[key]} is no whole number of 1 or more"
    resumes, devices = found.get("resumes", False), [*found.get("devices", {"cpu": ""})]
    named = isinstance(resumes, list) and all(device in devices for device in resumes)
    if not named and not isinstance(resumes, bool):
        yield (f"resumes: {resumes} is neither true nor false, nor a list of devices: it has "
               f"{', '.join(devices)}")  # fmt: skip
    seeds = found["seeds"]
    whole = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds:
        yield f"seeds: {seeds} is no list of whole numbers: [1, 2, 3]"
    elif len({*seeds}) < len(seeds):
        yield f"seeds: {seeds} has one twice"
    for key in TABLES:
        for name, value in found.get(key, {}).items():
            if not isinstance(name, str):
                yield f"{key}: {name} is no text: put the name into quotes"
            elif {*"/|"} & {*name}:
                yield f"{key}: {name}: no / and no |, since logs and tables are named so"
            if not isinstance(value, str):
                yield f"{key}: {name}: {value} is no text: put it into quotes, '' is nothing"


def _named(row: Row) -> str:
    return f"{row['setting']}, seed {row['seed']}"


def _run(row: Row) -> tuple[str, str]:
    return row["setting"], row["seed"]


def _read(path: Path, fields: Sequence[str]) -> list[Row]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = [*csv.reader(file)] or [[]]
    if head != list(fields):
        raise SourceError(f"{path} has the columns {', '.join(head)}, "
                          f"and the plan {', '.join(fields)}: move it away")  # fmt: skip
    for number, line in enumerate(lines, start=1):
        if len(line) != len(head):
            raise SourceError(f"{path}: row {number} has {len(line)} values for {len(head)} "
                              "columns: mend or remove it")  # fmt: skip
    return [dict(zip(head, line)) for line in lines]


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[int | None]:
    """Hold a lock, as long as this process or one that was given the file lives; yield the file, or
    None where another has the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield file.fileno()
