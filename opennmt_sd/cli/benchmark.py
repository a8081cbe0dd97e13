"""``scripts/benchmark.py``: run a suite, show its table, write its rows and its picture."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from opennmt_sd.cli.errors import guarded
from opennmt_sd.config.checks import ConfigError
from opennmt_sd.onmt import commands

ON_PAPER = ("systolic", "launches")  # counted, not timed
SUITES = ("ops", "lstm", "gru", "lm", "tagger", "onmt", "eole", "growth", *ON_PAPER)
INSTALL = {
    "onmt": commands.INSTALL,
    "eole": "it wants a venv of its own: scripts/check_eole.sh VENV, from a checkout",
}


@dataclass
class BenchmarkConfig:
    """Every key; conf/benchmark/benchmark.yaml says what they mean."""

    suite: str = MISSING
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

    from opennmt_sd.benchmark import report
    from opennmt_sd.benchmark.row import RedGateError
    from opennmt_sd.ops.cpu import native

    if native() is None:
        raise ConfigError(
            ["there is no native CPU module to measure: opennmt_sd info; make rebuild"]
        )
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    logging.getLogger().setLevel(logging.WARNING)
    module = _suite(cfg.suite)
    cases = _chosen(cfg, module)
    ceilings = report.show_machine()
    rows = []
    try:
        for row in report.progress(module.run(cfg.repeats, cases), cfg.suite):
            rows.append(row)
    except RedGateError as red:
        report.show_table(rows, ceilings)
        report.show_red(str(red))
        raise SystemExit(1) from None
    report.show_table(rows, ceilings)
    if cfg.json:
        report.write_json(rows, cfg.json)
    if cfg.plot:
        from opennmt_sd.benchmark import plots

        more = module.more(cfg.repeats, cases) if hasattr(module, "more") else []
        plots.draw(cfg.suite, [*rows, *report.progress(more, f"{cfg.suite}, further rates")],
                   ceilings, cfg.plot)  # fmt: skip


def count(cfg: BenchmarkConfig) -> None:
    """Show a suite that is counted: no clock is asked, so there is nothing to repeat.

    Raises:
        ConfigError: a value that cannot be used.
    """
    from opennmt_sd.benchmark import report

    module = _suite(cfg.suite)
    if cfg.plot and not hasattr(module, "draw"):
        raise ConfigError([f"plot={cfg.plot}: suite={cfg.suite} has no picture; use json="])
    rows = list(module.rows(_chosen(cfg, module)))
    report.show_columns(f"suite={cfg.suite}: {module.TITLE}", module.table(rows))
    if cfg.json:
        report.write_json(rows, cfg.json)
    if cfg.plot:
        module.draw(rows, cfg.plot)


def _chosen(cfg: BenchmarkConfig, module: Any) -> list[Any]:
    """Return the cases of a suite that are asked for.

    Raises:
        ConfigError: there is none.
    """
    cases = [
        case for case in module.CASES
        if cfg.cases is None or any(part in case.name for part in cfg.cases)
    ]  # fmt: skip
    if not cases:
        known = ", ".join(case.name for case in module.CASES)
        raise ConfigError([f"cases={cfg.cases}: no case of suite={cfg.suite} is named so: {known}"])
    return cases


def _suite(name: str) -> Any:
    try:
        return importlib.import_module(f"opennmt_sd.benchmark.{name}")
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


if __name__ == "__main__":
    main()
