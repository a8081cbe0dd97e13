"""``scripts/benchmark.py``: run a suite, show its table, write its rows and its picture."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from opennmt_sd.cli.benchmark_keys import (
    ALL,
    ON_GPU,
    ON_PAPER,
    SUITES,
    SWEEP,
    BenchmarkConfig,
    validate,
)
from opennmt_sd.cli.errors import guarded
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.onmt import commands

if TYPE_CHECKING:
    from opennmt_sd.benchmark.row import Row
    from opennmt_sd.benchmark.target import Target

NAMED = 30  # cases, at most, where an unknown one is refused
INSTALL = {
    "onmt": commands.INSTALL,
    "eole": "it wants a venv of its own: scripts/check_eole.sh VENV, from a checkout",
}


def main() -> None:
    """Exit codes: 0; 1 where the gate is red, so that there is no speed, or where a sweep finds
    what is slower than torch's; 2 wrong usage; 130 stopped by Ctrl-C."""
    ConfigStore.instance().store(name="benchmark_schema", node=BenchmarkConfig)
    _main()


@hydra.main(
    version_base="1.3", config_path="pkg://opennmt_sd.conf.benchmark", config_name="benchmark"
)
def _main(cfg: Any) -> None:
    guarded("benchmark", lambda: run(_typed(cfg)))


def _typed(cfg: Any) -> BenchmarkConfig:
    if OmegaConf.is_missing(cfg, "suite"):
        raise ConfigError([f"suite is missing: write suite=lstm, say (one of {', '.join(SUITES)})"])
    return OmegaConf.to_object(cfg)  # type: ignore[return-value]  # the schema's type


def run(cfg: BenchmarkConfig) -> None:
    """Measure one suite.

    Raises:
        ConfigError: a value that cannot be used. SystemExit: 1, the correctness gate is red, or
            a sweep found what is slower than torch's.
    """
    validate(cfg)
    if cfg.suite in ON_PAPER:
        count(cfg)
        return
    import torch

    from opennmt_sd.benchmark.target import Target
    from opennmt_sd.ops.cpu import native

    target = Target(torch.device("cuda", 0) if cfg.device == "cuda" else torch.device("cpu"),
                    cfg.dtype)  # fmt: skip
    if not target.gpu and native() is None:
        raise ConfigError(
            ["there is no native CPU module to measure: opennmt_sd info; make rebuild"]
        )
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    logging.getLogger().setLevel(logging.WARNING)
    with target.ready():
        if cfg.suite == ALL:
            time_all(cfg, target)
        elif cfg.suite == SWEEP:
            sweep(cfg, target)
        else:
            time(cfg, target)


def time_all(cfg: BenchmarkConfig, target: Target) -> None:
    """Measure one suite after the other, those left out whose libraries are not here.

    Raises:
        SystemExit: 1, a correctness gate is red; 130, stopped.
    """
    from opennmt_sd.benchmark import report

    ceilings = report.show_machine(target)
    rows: list[Row] = []
    red = False
    for suite in ON_GPU:
        try:
            module = _suite(suite, target)
        except ConfigError as error:
            report.show_left_out("; ".join(error.faults))
            continue
        done = len(rows)
        why = _measure(replace(cfg, suite=suite), module, _cases(module, target), target, rows)
        report.show_table(rows[done:], ceilings)
        if why:
            report.show_end(why.word, why.sentence)
            red = True
        if why and why.code != 1:
            raise SystemExit(why.code)
    report.show_choices()
    if red:
        raise SystemExit(1)


def time(cfg: BenchmarkConfig, target: Target) -> None:
    """Measure a suite that is timed.

    Raises:
        ConfigError: a value that cannot be used. SystemExit: 1, the correctness gate is red; 130,
            stopped.
    """
    from opennmt_sd.benchmark import report

    module = _suite(cfg.suite, target)
    cases = _chosen(cfg, _cases(module, target))
    ceilings = report.show_machine(target)
    rows: list[Row] = []
    why = _measure(cfg, module, cases, target, rows)
    report.show_table(rows, ceilings)
    report.show_choices()
    if why:
        report.show_end(why.word, why.sentence)
        raise SystemExit(why.code)
    if cfg.plot:
        from opennmt_sd.benchmark import plots

        more = module.more(cfg.rounds, cases, *_on(target)) if hasattr(module, "more") else []
        plots.draw(cfg.suite, [*rows, *report.progress(more, f"{cfg.suite}, further rates")],
                   ceilings, cfg.plot, target)  # fmt: skip


def sweep(cfg: BenchmarkConfig, target: Target) -> None:
    """Measure random shapes; show the worst and what is usual, and write all.

    Raises:
        ConfigError: a value that cannot be used. SystemExit: 1, the correctness gate is red, or
            something is slower than torch's; 130, stopped.
    """
    from opennmt_sd.benchmark import report, sweep

    seed = sweep.SEED if cfg.seed is None else cfg.seed
    cases = _chosen(cfg, sweep.cases(seed, cfg.shapes or sweep.SHAPES, cfg.threads))
    report.show_machine(target)
    rows: list[Row] = []
    why = _measure(cfg, sweep, cases, target, rows)
    if rows:
        report.show_worst(f"suite=sweep seed={seed}: the worst of {len(rows)}", sweep.worst(rows))
        report.show_words(sweep.words(rows))
    if why:
        report.show_end(why.word, why.sentence)
        raise SystemExit(why.code)
    if lost := sweep.slower(rows):
        report.show_end("SLOWER", lost)
        raise SystemExit(1)


class End(NamedTuple):
    """Why a suite has ended early."""

    word: str
    sentence: str
    code: int = 1


def _measure(
    cfg: BenchmarkConfig, module: Any, cases: list[Any], target: Target, rows: list[Row]
) -> End | None:
    """Add a suite's rows to others, and write them all, one by one; return why it ended early."""
    import torch

    from opennmt_sd.benchmark import machine, report
    from opennmt_sd.benchmark.row import RedGateError

    facts, before = {"machine": machine.describe(target)}, len(rows)
    measured = module.run(cfg.rounds, cases, *_on(target))
    try:
        for row in report.progress(measured, f"suite={cfg.suite}", len(cases)):
            rows.append(row)
            if cfg.json:
                report.write_json(rows, cfg.json, facts)
    except RedGateError as red:
        return End("RED GATE", str(red))
    except torch.cuda.OutOfMemoryError:
        done = {row.case for row in rows[before:]}
        left = ", ".join(case.name for case in cases if case.name not in done)
        return End("OUT OF MEMORY", f"suite={cfg.suite}: not measured: {left}; choose smaller "
                   "ones with cases=[...]")  # fmt: skip
    except KeyboardInterrupt:
        kept = f"; {cfg.json} has those that are" if cfg.json and rows else ""
        return End("STOPPED", f"suite={cfg.suite}: not all of {len(cases)} cases are measured"
                   f"{kept}", 130)  # fmt: skip
    return None


def _on(target: Target) -> tuple[Target, ...]:
    """Return what else a suite takes: nothing for the CPU, its default."""
    return (target,) if target.gpu else ()


def count(cfg: BenchmarkConfig) -> None:
    """Show a suite that is counted: no clock is asked, so there is nothing to repeat.

    Raises:
        ConfigError: a value that cannot be used.
    """
    from opennmt_sd.benchmark import report

    module = _suite(cfg.suite)
    if cfg.plot and not hasattr(module, "draw"):
        raise ConfigError([f"plot={cfg.plot}: suite={cfg.suite} has no picture; use json="])
    cases = _chosen(cfg, module.CASES)
    if cfg.threads:
        import torch

        torch.set_num_threads(cfg.threads)
    with report.waiting(f"suite={cfg.suite}"):
        rows = list(module.rows(cases))
    report.show_columns(f"suite={cfg.suite}: {module.TITLE}", module.table(rows))
    if cfg.json:
        report.write_json(rows, cfg.json)
    if cfg.plot:
        module.draw(rows, cfg.plot)


def _cases(module: Any, target: Target) -> list[Any]:
    """Return a suite's cases; a GPU has some besides."""
    return [*module.CASES, *(getattr(module, "GPU_CASES", []) if target.gpu else [])]


def _chosen(cfg: BenchmarkConfig, all_cases: Sequence[Any]) -> list[Any]:
    """Return the cases of a suite that are asked for.

    Raises:
        ConfigError: there is none.
    """
    cases = [
        case for case in all_cases
        if cfg.cases is None or any(part in case.name for part in cfg.cases)
    ]  # fmt: skip
    if not cases:
        known = ", ".join(case.name for case in all_cases[:NAMED])
        known += ", ..." if len(all_cases) > NAMED else ""
        raise ConfigError([f"cases={cfg.cases}: no case of suite={cfg.suite} is named so: {known}"])
    return cases


def _suite(name: str, target: Target | None = None) -> Any:
    """Import a suite.

    Raises:
        ConfigError: its libraries are not installed.
    """
    on_gpu = target is not None and target.gpu
    module = "ops_gpu" if name == "ops" and on_gpu else name
    try:
        return importlib.import_module(f"opennmt_sd.benchmark.{module}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if name not in INSTALL or missing == "opennmt_sd":
            raise
        raise ConfigError(
            [f"suite={name}: '{missing}' is not installed; {INSTALL[name]}"]
        ) from None


if __name__ == "__main__":
    main()
