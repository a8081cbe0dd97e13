"""The keys of ``scripts/benchmark.py``, and what speaks against their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from opennmt_sd.config.checks import ConfigError

ON_PAPER = ("systolic", "launches", "noise")  # counted, not timed
ON_GPU = ("ops", "lstm", "gru", "lm", "tagger", "onmt", "eole")
ALL = "all"  # of these, one after the other
SWEEP = "sweep"  # of shapes that are drawn
SUITES = (*ON_GPU, ALL, "growth", SWEEP, *ON_PAPER)
ROUNDS = 15  # if repeats= does not say
DTYPES = ("float32", "tf32", "float16", "bfloat16")
TRAINED_IN_FLOAT32 = ("onmt", "eole")


@dataclass
class BenchmarkConfig:
    """Every key; conf/benchmark/benchmark.yaml says what they mean."""

    suite: str = MISSING
    device: str = "cpu"
    dtype: str = "float32"
    cases: list[str] | None = None
    repeats: int | None = None
    threads: int | None = None
    seed: int | None = None
    shapes: int | None = None
    json: str | None = None
    plot: str | None = None

    @property
    def rounds(self) -> int:
        """Return how many rounds are timed."""
        return ROUNDS if self.repeats is None else self.repeats


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
    for name in ("repeats", "threads", "shapes"):
        value = getattr(cfg, name)
        if value is not None and value < 1:
            faults.append(f"{name}={value}: must be 1 or more")
    if cfg.suite in ON_PAPER and cfg.repeats is not None:
        faults.append(f"repeats={cfg.repeats}: suite={cfg.suite} is counted, once and for all: "
                      "leave repeats= out")  # fmt: skip
    faults += _sweep_faults(cfg)
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


def _sweep_faults(cfg: BenchmarkConfig) -> list[str]:
    """Return what speaks against the keys of a sweep, or against others in one."""
    if cfg.suite == SWEEP:
        faults = [f"seed={cfg.seed}: must be 0 or more"] if (cfg.seed or 0) < 0 else []
        return faults + ([f"plot={cfg.plot}: suite={SWEEP} has no picture; use json="]
                         if cfg.plot else [])  # fmt: skip
    return [f"{name}={getattr(cfg, name)}: suite={cfg.suite} draws no shapes, only suite={SWEEP} "
            f"does: leave {name}= out" for name in ("seed", "shapes")
            if getattr(cfg, name) is not None]  # fmt: skip


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
