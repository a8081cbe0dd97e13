#!/usr/bin/env python3
"""Compare settings by seeds: run what is missing, show means, differences and their intervals.

    python scripts/results.py results/NAME.yaml --run        # begins, or goes on
    python scripts/results.py results/NAME.yaml              # shows the tables, in Markdown

A plan, NAME.yaml:

    command: >-
      onmt_train -config conf/onmt/multi30k.yaml -train_steps {update} -seed {seed}
      -save_model {folder}/model {setting}
    update: 1200
    seeds: [1, 2, 3]
    settings:              # the first one is what the others are compared with
      ordinary: -sd_space random
      structured: -sd_space structured
    scores:                # the last match of each counts; its group is a number
      valid: 'Validation perplexity: ([\\d.]+)'
    threads: 1             # of each run; default 1

bash runs the command here, with the commands of this Python's environment, and so its package;
{folder} is a new folder that goes afterwards. Each run that ends well is a row of NAME.csv:
setting, seed, commit, threads, update, the scores, seconds of all its processors and of the
clock, command. What it prints is in runs/NAME/. Several processes may work on one plan, and a run
that is stopped leaves no row.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import preparing
import yaml
from paired import Sample, differences
from preparing import SourceError

import opennmt_sd
from opennmt_sd import atomic

KEYS = {"command", "update", "seeds", "settings", "scores", "threads"}
Row = dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        path: of the plan; the rows lie beside it.
        command: with ``{seed}``, ``{setting}``, ``{folder}`` and ``{update}``.
        update: when a run ends.
        seeds: of each setting.
        settings: what stands for ``{setting}``, by name.
        scores: what finds each in the output.
        threads: of a run.
    """

    path: Path
    command: str
    update: int
    seeds: Sequence[int]
    settings: Mapping[str, str]
    scores: Mapping[str, re.Pattern[str]]
    threads: int = 1

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan.

        Raises:
            SourceError: it is none.
        """
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise SourceError(f"{path} is no YAML: {error}") from None
        keys = set(found) if isinstance(found, dict) else set()
        missing, unknown = KEYS - {"threads"} - keys, keys - KEYS
        if missing or unknown:
            wrong = [f"lacks {', '.join(sorted(missing))}"] if missing else []
            wrong += [f"has unknown keys {', '.join(map(str, unknown))}"] if unknown else []
            raise SourceError(f"{path} {' and '.join(wrong)}: --help shows a plan")
        try:
            scores = {name: re.compile(text) for name, text in found.pop("scores").items()}
        except re.error as error:
            raise SourceError(f"{path}: scores: {error.pattern}: {error}") from None
        faults = [f"scores: {of.pattern} needs one group, which is the number"
                  for of in scores.values() if of.groups != 1]  # fmt: skip
        faults += [f"{name}: there is none" for name in ("scores", "settings")
                   if not (scores if name == "scores" else found[name])]  # fmt: skip
        seeds = found["seeds"]
        if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
            faults.append(f"seeds: {seeds} is no list of whole numbers: [1, 2, 3]")
        try:
            found["command"].format(seed=0, setting="", folder="", update=0)
        except (KeyError, IndexError, ValueError) as error:
            faults.append(
                f"command: {error} is not {{seed}}, {{setting}}, {{folder}} or {{update}}; a brace "
                "of bash's is written twice"
            )
        if faults:
            raise SourceError("\n".join(f"{path}: {fault}" for fault in faults))
        return cls(path, scores=scores, **found)

    @property
    def csv(self) -> Path:
        """Return where the rows are."""
        return self.path.with_suffix(".csv")

    @property
    def fields(self) -> list[str]:
        """Return the columns."""
        return ["setting", "seed", "commit", "threads", "update", *self.scores,
                "processor_seconds", "seconds", "command"]  # fmt: skip

    def rows(self) -> list[Row]:
        """Return the rows that there are.

        Raises:
            SourceError: their columns are others.
        """
        if not self.csv.exists():
            return []
        with self.csv.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            found = list(reader)
        if reader.fieldnames != self.fields:
            raise SourceError(f"{self.csv} has the columns {', '.join(reader.fieldnames or ())}, "
                              f"and the plan {', '.join(self.fields)}: move it away")  # fmt: skip
        return found

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row to the others, in the order of the plan: all or nothing."""
        with locked(self.csv.with_suffix(".lock"), wait=True):
            places = [(name, str(seed)) for seed in self.seeds for name in self.settings]
            rows = [*self.rows(), {name: str(value) for name, value in row.items()}]
            known = {place: i for i, place in enumerate(places)}
            rows.sort(key=lambda row: known.get((row["setting"], row["seed"]), len(known)))
            text = io.StringIO()
            writer = csv.DictWriter(text, self.fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            atomic.write_text(self.csv, text.getvalue())

    def values(self, setting: str, score: str) -> dict[int, float]:
        """Return a score of a setting by seed."""
        return {int(row["seed"]): float(row[score])
                for row in self.rows() if row["setting"] == setting}  # fmt: skip


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that ends with the process; say whether it was to be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def run(plan: Plan, setting: str, seed: int) -> Row | None:
    """Make a run and return its row; None where it failed, which is reported."""
    log = Path("runs") / plan.path.stem / f"{setting}.{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        given = {"setting": plan.settings[setting], "seed": seed, "update": plan.update}
        command = plan.command.format(folder=folder, **given)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        threads = {name: str(plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        before, start = _processor_seconds(), time.monotonic()
        with log.open("w") as file:
            code = subprocess.run(
                ["bash", "-c", command], stdout=file, stderr=file, check=False,
                env={**os.environ, "PATH": path, **threads},
            ).returncode  # fmt: skip
        seconds, processor = time.monotonic() - start, _processor_seconds() - before
    text = log.read_text(encoding="utf-8", errors="replace")
    scores = {name: [*of.finditer(text)] for name, of in plan.scores.items()}
    lacking = [name for name, matches in scores.items() if not matches]
    if code or lacking:
        why = f"exit code {code}" if code else f"it printed no {' and no '.join(lacking)}"
        print(f"{setting}, seed {seed}: {why}; see {log}", file=sys.stderr)
        return None
    return {
        "setting": setting, "seed": str(seed), "commit": _commit(), "threads": str(plan.threads),
        "update": str(plan.update), **{name: of[-1][1] for name, of in scores.items()},
        "processor_seconds": f"{processor:.0f}", "seconds": f"{seconds:.0f}",
        "command": plan.command.format(folder="FOLDER", **given),
    }  # fmt: skip


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit() -> str:
    """Return that of the package, with "-dirty" where files differ from it; "" outside git."""
    where = Path(opennmt_sd.__file__).parent
    git = ["git", "-C", str(where), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def run_missing(plan: Plan, settings: Sequence[str], seeds: Sequence[int]) -> bool:
    """Make the runs that have no row, seed by seed; tell whether all went well."""
    well = True
    for seed in seeds:
        for setting in settings:
            with locked(Path("runs") / plan.path.stem / f"{setting}.{seed}.lock", wait=False) as ok:
                if not ok or seed in plan.values(setting, next(iter(plan.scores))):
                    continue
                row = run(plan, setting, seed)
                if row is None:
                    well = False
                    continue
                plan.add(row)
                print(", ".join(f"{name} {row[name]}" for name in plan.fields[:-1]), flush=True)
    return well


def check_known(plan: Plan, what: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    """Refuse a setting or seed that the plan does not have. Raises: SourceError."""
    for one in asked:
        if one not in known:
            has = ", ".join(map(str, known))
            raise SourceError(f"{plan.path} has no {what} {one}: it has {has}")


def tables(plan: Plan) -> str:
    """Return a table of each score, in Markdown."""
    first = next(iter(plan.settings))
    lines = []
    for score in plan.scores:
        columns = ("n", "mean", "standard deviation", f"minus {first}, paired", "95 % interval")
        lines += [f"| {' | '.join([score, *columns])} |", "|---" * 6 + "|"]
        base = plan.values(first, score)
        for setting in plan.settings:
            values = plan.values(setting, score)
            if not values:
                continue
            sample = Sample.of([*values.values()])
            apart = None if setting == first else differences(values, base)
            lines.append(f"| {setting} | {sample.n} | {sample.mean:.2f} | {sample.sd:.2f} | "
                         + (_difference(apart) if apart else " | ") + " |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def _difference(apart: Sample) -> str:
    low, high = apart.mean - apart.half, apart.mean + apart.half
    return f"{apart.mean:+.2f} (n {apart.n}) | {low:+.2f} to {high:+.2f}"


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0; 1: a run failed; 2: wrong usage."""
    parser = preparing.parser(__doc__)
    parser.add_argument("plan", type=Path, help="NAME.yaml")
    parser.add_argument("--run", action="store_true", help="make the runs that have no row")
    parser.add_argument("--settings", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these, in this order")
    args = parser.parse_args(argv)
    well = True

    def work() -> None:
        nonlocal well
        plan = Plan.read(args.plan)
        settings, seeds = args.settings or [*plan.settings], args.seeds or plan.seeds
        check_known(plan, "setting", settings, [*plan.settings])
        check_known(plan, "seed", seeds, plan.seeds)
        if args.run:
            well = run_missing(plan, settings, seeds)
        print(tables(plan))

    return preparing.run(work) or (0 if well else 1)


if __name__ == "__main__":
    sys.exit(main())
