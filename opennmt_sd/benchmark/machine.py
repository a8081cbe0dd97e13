"""What was measured on: a header for every table, and the two ceilings of the machine."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import opennmt_sd
from opennmt_sd.benchmark import gpu
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.ops import engine_for
from opennmt_sd.ops.cpu import native


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at most: 1e9 FLOPs a second; 1e9 bytes read a second, from memory."""

    gflops: float
    gbs: float
    where: str = "in registers (float32)"

    @classmethod
    def of(cls, target: Target) -> Ceilings:
        """Measure them."""
        if target.gpu:
            product = f"in a product of 4096 x 4096 ({target.precision})"
            return cls(gpu.peak_gflops(target), gpu.bandwidth_gbs(target), product)
        return cls(peak_gflops(), bandwidth_gbs())

    def __str__(self) -> str:
        return f"{self.gflops:.0f} GFLOP/s {self.where}, {self.gbs:.0f} GB/s from memory"


def describe(target: Target = CPU) -> dict[str, str]:
    """Processor, threads, versions, engine; of a GPU the card before them."""
    if target.gpu:
        host = {"processor": _processor(), "threads": str(torch.get_num_threads())}
        return {**gpu.describe(target), **host}
    module = native()
    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "torch": f"{torch.__version__} ({_blas()})",
        "opennmt_sd": opennmt_sd.__version__,
        "engine": engine_for("cpu", torch.float32) + (f", {module.simd_level()}" if module else ""),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _blas() -> str:
    for name in ("mkl", "openblas"):
        if name in torch.__config__.show().lower():
            return name.upper()
    return "BLAS"


def peak_gflops() -> float:
    """Multiplications and additions a second, in 1e9, with all of torch's threads: the best of
    several runs of independent float32 multiply-adds in registers."""
    module = native()
    if module is None:
        return float("nan")
    threads, best = torch.get_num_threads(), 0.0
    for _ in range(5):
        begin = time.perf_counter()
        done = module.multiply_adds_f32(2_000_000, threads)
        best = max(best, 2 * done / (time.perf_counter() - begin) / 1e9)
    return best


def bandwidth_gbs(megabytes: int = 256) -> float:
    """Bytes read a second, in 1e9, from a tensor of this size: the best of several sums."""
    x = torch.ones(megabytes * 2**18)
    best = 0.0
    for _ in range(8):
        begin = time.perf_counter()
        x.sum()
        best = max(best, x.numel() * 4 / (time.perf_counter() - begin) / 1e9)
    return best
