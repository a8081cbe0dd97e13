#!/usr/bin/env python3
"""Compare settings by seeds: run what is missing, show means, differences and their intervals.

    python scripts/results.py results/NAME.yaml --run        # begins, or goes on
    python scripts/results.py results/NAME.yaml              # shows the tables, in Markdown
    python scripts/results.py results/NAME.yaml --plot curves.png

A plan, NAME.yaml:

    command: >-
      onmt_sd_train -config conf/onmt/multi30k.yaml -train_steps {update} -seed {seed}
      -save_model {folder}/model {setting} {device}
    update: 1200
    seeds: [1, 2, 3]
    settings:              # the first one is what the others are compared with
      ordinary: -sd_space random
      structured: -sd_space structured
    scores:                # the last match of each counts; its group is a number
      valid: 'Validation perplexity: ([\\d.]+)'
    curve: 'Step +(?P<update>\\d+)/.*ppl: +(?P<score>[\\d.]+)' # a match is a point; default: none
    threads: 1             # of each run; default 1
    resumes: true          # a run that was stopped goes on, see below; or [cpu]: on these devices
    devices:               # what --device may name; default: the CPU alone
      cpu: ''
      cuda: -world_size 1 -gpu_ranks 0

bash runs the command here (with -e and -o pipefail: what fails in it ends it), with the commands
of this Python's environment, and so its package; {folder} is a new folder that goes afterwards.
Each run that ends well is a row of NAME.csv:
setting, seed, commit, device, threads, update, the scores, seconds of all its processors and of
the clock, command; of its curve each point is a row of NAME_curves.csv: setting, seed, update,
seconds since the run began, score. What it prints is in runs/NAME/. --device cuda has files of its
own, NAME_cuda. Several processes may work on one plan, and a run that is stopped leaves no row.
A command that goes on in {folder} where it was stopped is one of a plan that resumes: there the
folder, in runs/NAME.legs/, from here on, stays until the row is written, and --run goes on in it.
Breaks are not counted; processor_seconds are left out where the machine itself stopped.
Where rows were made by another command, update or number of threads than the plan has now, nothing
is run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import curves
import preparing
from legs import RUNNING, Run
from paired import Sample, differences
from plans import Plan, Row, is_number, locked
from preparing import SourceError

import opennmt_sd


def run(one: Run, lock: int) -> tuple[Row, list[Row]] | None:
    """Make a run and return its row and its curve; None where it failed, which is reported."""
    code, plan = one.go(_commit(), lock), one.plan
    text = one.text
    scores = {name: [*of.finditer(text)] for name, of in plan.scores.items()}
    lacking = [name for name, matches in scores.items() if not matches]
    if code or lacking:
        return _failed(
            one, f"exit code {code}" if code else f"it printed no {' and no '.join(lacking)}"
        )
    last = {name: of[-1][1] for name, of in scores.items()}
    if odd := [f"{name} is {value!r}" for name, value in last.items() if not is_number(value)]:
        return _failed(one, f"{', '.join(odd)}, which is no number")
    processors = one.processor_seconds
    row = {
        "setting": one.setting, "seed": str(one.seed), "commit": one.commits,
        "device": _device(plan), **one.way, **last,
        "processor_seconds": "" if processors is None else f"{processors:.0f}",
        "seconds": f"{one.seconds:.0f}",
    }  # fmt: skip
    return row, _curve(plan.curve, text, one.stamps)


def _failed(one: Run, why: str) -> None:
    print(f"{one.setting}, seed {one.seed}: {why}; see {one.log}", file=sys.stderr)


def _curve(of: re.Pattern[str] | None, text: str, stamps: Sequence[float]) -> list[Row]:
    """Return the points whose score is a number, with the time of the line that it stands in; the
    last of an update, which a leg may have made again."""
    points = {}
    for match in of.finditer(text) if of else ():
        if not is_number(match["score"]):
            continue
        stamp = stamps[text.count("\n", 0, match.end("score"))]
        update = match["update"].replace(",", "")
        points[update] = {"update": update, "score": match["score"], "seconds": f"{stamp:.1f}"}
    return [*points.values()]


def _commit() -> str:
    """Return that of the package, with "-dirty" where files differ from it, rows and curves apart:
    runs add to them; "" outside git."""
    where = Path(opennmt_sd.__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(where), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    files = ":(top)", ":(top,exclude)results/*.csv"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *files)
    return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


def _device(plan: Plan) -> str:
    """Return "cpu", or the card's name. Raises: SourceError: there is no card."""
    if plan.device != "cuda":
        return plan.device
    import torch

    if not torch.cuda.is_available():
        raise SourceError("--device cuda: torch finds no card here")
    return str(torch.cuda.get_device_name())


def attempt(plan: Plan, setting: str, seed: int) -> bool:
    """Make a run that has no row, and that no other process makes; tell whether all went well."""
    one = Run(plan, setting, seed)
    with locked(one.log.with_suffix(".lock"), wait=False) as lock:
        if lock is None:
            return True
        if seed in plan.values(setting, next(iter(plan.scores))):
            one.forget()  # what was killed when it had its row
            return True
        try:
            made = run(one, lock)
        except SourceError as error:
            _failed(one, str(error))
            return False
        if made is None:
            return False
        row, curve = made
        plan.add(row, curve)
        one.forget()
        print(", ".join(f"{name} {row[name]}" for name in plan.fields[:-1]), flush=True)
    return True


def run_missing(plan: Plan, settings: Sequence[str], seeds: Sequence[int], jobs: int = 1) -> bool:
    """Make the runs that have no row, seed by seed, `jobs` at a time."""
    _device(plan)
    if others := plan.strangers():
        raise SourceError(f"{others}: move the file away, or give the plan another name")
    plan.points()  # refused now, not when a run has ended
    for seed in seeds:
        for setting in settings:
            Run(plan, setting, seed).check()
    pool = ThreadPoolExecutor(jobs)
    with _ended_by_signals():
        try:
            asked = [pool.submit(attempt, plan, setting, seed)
                     for seed in seeds for setting in settings]  # fmt: skip
            well = [one.result() for one in asked]
            return all(well)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in [*RUNNING]:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise, as Ctrl-C does, unless they are ignored."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


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
            spread = f"{sample.sd:.2f}" if sample.n > 1 else ""
            lines.append(f"| {setting} | {sample.n} | {sample.mean:.2f} | {spread} | "
                         + (_difference(apart) if apart else " | ") + " |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def _difference(apart: Sample) -> str:
    low, high = apart.mean - apart.half, apart.mean + apart.half
    interval = f"{low:+.2f} to {high:+.2f}" if apart.n > 1 else ""
    return f"{apart.mean:+.2f} (n {apart.n}) | {interval}"


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0; 1: a run failed; 2: wrong usage; 130: Ctrl-C; 143: SIGTERM; 129: SIGHUP."""
    parser = preparing.parser(__doc__)
    parser.add_argument("plan", type=Path, help="NAME.yaml")
    parser.add_argument("--run", action="store_true", help="make the runs that have no row")
    parser.add_argument("--settings", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these, in this order")
    parser.add_argument("--device", default="cpu", help="of the plan's devices; default: cpu")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; default: 1")
    args = parser.parse_args(argv)
    well = True

    def work() -> None:
        nonlocal well
        plan = Plan.read(args.plan, args.device)
        settings, seeds = args.settings or [*plan.settings], args.seeds or plan.seeds
        check_known(plan, "setting", settings, [*plan.settings])
        check_known(plan, "seed", seeds, plan.seeds)
        if args.jobs < 1:
            raise SourceError(f"--jobs {args.jobs}: it must be 1 or more")
        if args.run:
            well = run_missing(plan, settings, seeds, args.jobs)
        elif others := plan.strangers():
            print(f"note: {others}", file=sys.stderr)
        print(tables(plan))
        if args.plot:
            curves.draw(plan, args.plot)

    return preparing.run(work) or (0 if well else 1)


if __name__ == "__main__":
    sys.exit(main())
