"""What was measured on: a header for every table, and the two ceilings of the machine."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

import opennmt_sd
from opennmt_sd.ops import engine_for
from opennmt_sd.ops.cpu import native


def describe() -> dict[str, str]:
    """Processor, threads, versions, engine."""
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
