"""What a GPU is, and the most it can do: a header for its tables."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import Any

import torch

import opennmt_sd
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.target import Target, tf32
from opennmt_sd.ops import engine_for

# of nvidia-smi, and in which words
ASKED = {
    "driver_version": "driver {}",
    "clocks.sm": "at {} now",
    "clocks.max.sm": "{} at most",
    "clocks.max.memory": "memory {}",
    "power.limit": "power limit {}",
}


def describe(target: Target) -> dict[str, str]:
    """Card, driver and clocks, versions, flags, engine."""
    card = torch.cuda.get_device_properties(target.device)
    memory, units = card.total_memory / 2**30, card.multi_processor_count
    return {
        "device": f"{card.name}, sm_{card.major}{card.minor}, {memory:.0f} GiB, {units} units",
        "driver": _driver(card),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN "
                 f"{torch.backends.cudnn.version()}, Triton {_version('triton')}",
        "python": platform.python_version(),
        "dtype": f"{target.precision}, TF32 {flags()}",
        "opennmt_sd": opennmt_sd.__version__,
        "engine": engine_for(target.device, target.dtype),
    }  # fmt: skip


def flags() -> str:
    """Say where float32 may be rounded to TF32."""
    places = zip(("products", "cuDNN"), tf32())
    return ", ".join(f"{'on' if allowed else 'off'} in {name}" for name, allowed in places)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _driver(card: Any) -> str:
    """Return what nvidia-smi says of the driver and clocks, as far as it is there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    # an older torch knows no card by its name, nor nvidia-smi a part of one: then the first card's
    for which in ([f"--id=GPU-{card.uuid}"] if hasattr(card, "uuid") else [], []):
        try:
            done = subprocess.run(
                [*command, *which], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        values = [value.strip() for value in done.stdout.partition("\n")[0].split(",")]
        return ", ".join(words.format(value) for words, value in zip(ASKED.values(), values))
    return "unknown: nvidia-smi does not say"


def peak_gflops(target: Target, side: int = 4096) -> float:
    """Multiplications and additions a second, in 1e9, of a large product of the precision."""
    a, b = (target.put(torch.randn(side, side)) for _ in range(2))
    ms = alternate({"product": lambda: a @ b}, 5, target.clock)["product"]
    return 2 * side**3 / ms / 1e6


def bandwidth_gbs(target: Target, megabytes: int = 512) -> float:
    """Bytes read a second, in 1e9, of a sum of a tensor of this size."""
    x = torch.ones(megabytes * 2**18, device=target.device)
    ms = alternate({"sum": x.sum}, 5, target.clock)["sum"]
    return x.numel() * 4 / ms / 1e6
