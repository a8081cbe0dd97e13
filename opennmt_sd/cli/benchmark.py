"""``scripts/benchmark.py``: run a suite, show its table, write its rows and its picture."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from opennmt_sd.cli.errors import guarded
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.onmt import commands

if TYPE_CHECKING:
    from opennmt_sd.benchmark.row import Row
    from opennmt_sd.benchmark.target import Target

ON_PAPER = ("systolic", "launches")  # counted, not timed
ON_GPU = ("ops", "lstm", "gru", "lm", "tagger", "onmt", "eole")
ALL = "all"  # of these, one after the other
SUITES = (*ON_GPU, ALL, "growth", *ON_PAPER)
DTYPES = ("float32", "tf32", "float16", "bfloat16")
TRAINED_IN_FLOAT32 = ("onmt", "eole")
INSTALL = {
    "onmt": commands.INSTALL,
    "eole": "it wants a venv of its own: scripts/check_eole.sh VENV, from a checkout",
}


@dataclass
class BenchmarkConfig:
    """Every key; conf/benchmark/benchmark.yaml says what they mean."""

    suite: str = MISSING
    device: str = "cpu"
    dtype: str = "float32"
    cases: list[str] | None = None
    repeats: int = 15
    threads: int | None = None
    json: str | None = None
    plot: str | None = None


def main() -> None:
    """Exit codes: 0; 1 where the gate is red, so that there is no speed; 2 wrong usage."""
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
        ConfigError: a value that cannot be used. SystemExit: 1, the correctness gate is red.
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
        else:
            time(cfg, target)


def time_all(cfg: BenchmarkConfig, target: Target) -> None:
    """Measure one suite after the other, those left out whose libraries are not here. The file is
    written after each, so that nothing is lost to one that fails.

    Raises:
        SystemExit: 1, a correctness gate is red.
    """
    from opennmt_sd.benchmark import machine, report

    ceilings = report.show_machine(target)
    rows: list[Row] = []
    red = False
    for suite in ON_GPU:
        try:
            module = _suite(suite, target)
        except ConfigError as error:
            report.show_left_out("; ".join(error.faults))
            continue
        found, why = _rows(replace(cfg, suite=suite), module, _cases(module, target), target)
        report.show_table(found, ceilings)
        if why:
            report.show_end(*why)
        rows, red = [*rows, *found], red or bool(why)
        if cfg.json:
            report.write_json(rows, cfg.json, {"machine": machine.describe(target)})
    report.show_choices()
    if red:
        raise SystemExit(1)


def time(cfg: BenchmarkConfig, target: Target) -> None:
    """Measure a suite that is timed.

    Raises:
        ConfigError: a value that cannot be used. SystemExit: 1, the correctness gate is red.
    """
    from opennmt_sd.benchmark import machine, report

    module = _suite(cfg.suite, target)
    cases = _chosen(cfg, _cases(module, target))
    ceilings = report.show_machine(target)
    rows, why = _rows(cfg, module, cases, target)
    report.show_table(rows, ceilings)
    report.show_choices()
    if why:
        report.show_end(*why)
        raise SystemExit(1)
    if cfg.json:
        report.write_json(rows, cfg.json, {"machine": machine.describe(target)})
    if cfg.plot:
        from opennmt_sd.benchmark import plots

        more = module.more(cfg.repeats, cases, *_on(target)) if hasattr(module, "more") else []
        plots.draw(cfg.suite, [*rows, *report.progress(more, f"{cfg.suite}, further rates")],
                   ceilings, cfg.plot, target)  # fmt: skip


def _rows(
    cfg: BenchmarkConfig, module: Any, cases: list[Any], target: Target
) -> tuple[list[Row], tuple[str, str] | None]:
    """Return a suite's rows, and why it ended early, in a word and in a sentence."""
    import torch

    from opennmt_sd.benchmark import report
    from opennmt_sd.benchmark.row import RedGateError

    rows = []
    try:
        for row in report.progress(module.run(cfg.repeats, cases, *_on(target)), cfg.suite):
            rows.append(row)
    except RedGateError as red:
        return rows, ("RED GATE", str(red))
    except torch.cuda.OutOfMemoryError:
        done = {row.case for row in rows}
        left = ", ".join(case.name for case in cases if case.name not in done)
        return rows, ("OUT OF MEMORY", f"suite={cfg.suite}: not measured: {left}; choose smaller "
                      "ones with cases=[...]")  # fmt: skip
    return rows, None


def _on(target: Target) -> tuple[Target, ...]:
    """Return what a suite is told besides: the CPU goes without saying."""
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
    rows = list(module.rows(_chosen(cfg, module.CASES)))
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
        known = ", ".join(case.name for case in all_cases)
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


def validate(cfg: BenchmarkConfig) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: with every fault.
    """
    faults = []
    if cfg.suite not in SUITES:
        faults.append(f"suite={cfg.suite}: use one of {', '.join(SUITES)}")
    faults += _device_faults(cfg)
    if cfg.suite == ALL:
        faults += [f"{name}={getattr(cfg, name)}: suite=all takes none; name one suite"
                   for name in ("cases", "plot") if getattr(cfg, name)]  # fmt: skip
    for name in ("repeats", "threads"):
        value = getattr(cfg, name)
        if value is not None and value < 1:
            faults.append(f"{name}={value}: must be 1 or more")
    for name, kinds in (("json", (".json",)), ("plot", (".png", ".svg", ".pdf"))):
        value = getattr(cfg, name)
        if value is None:
            continue
        if Path(value).suffix not in kinds:
            faults.append(f"{name}={value}: the file's name must end in {' or '.join(kinds)}")
        elif not Path(value).absolute().parent.is_dir():
            faults.append(f"{name}={value}: there is no folder {Path(value).absolute().parent}")
    if faults:
        raise ConfigError(faults)


def _device_faults(cfg: BenchmarkConfig) -> list[str]:
    """Return what speaks against the device and the precision."""
    if cfg.device not in ("cpu", "cuda"):
        return [f"device={cfg.device}: use cpu or cuda (of several GPUs the environment's "
                "CUDA_VISIBLE_DEVICES chooses one)"]  # fmt: skip
    if cfg.dtype not in DTYPES:
        return [f"dtype={cfg.dtype}: use one of {', '.join(DTYPES)}"]
    if cfg.device == "cpu":
        return [] if cfg.dtype == "float32" else [
            f"dtype={cfg.dtype}: on the CPU float32 is measured; leave dtype= out, or add "
            "device=cuda"
        ]  # fmt: skip
    if cfg.suite in ON_PAPER:
        return [f"device=cuda: suite={cfg.suite} is counted, and asks no device: leave device= out"]
    if cfg.suite not in (*ON_GPU, ALL):
        return [f"device=cuda: suite={cfg.suite} measures the CPU's kernels: leave device= out, or "
                f"use one of {', '.join(ON_GPU)}"]  # fmt: skip
    if cfg.dtype in ("float16", "bfloat16") and cfg.suite in TRAINED_IN_FLOAT32:
        return [f"dtype={cfg.dtype}: suite={cfg.suite} is measured in float32 and tf32"]
    import torch

    if not torch.cuda.is_available():
        return ["device=cuda: torch sees no CUDA device here; see nvidia-smi and "
                f"torch.version.cuda ({torch.version.cuda}), or leave device= out, which measures "
                "the CPU"]  # fmt: skip
    return []


if __name__ == "__main__":
    main()
