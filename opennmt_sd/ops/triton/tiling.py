"""How the work of a step is cut into programs.

A program owns U hidden units of BT samples. Where all programs fit on the device at once, they do
all steps in one launch, and wait for each other between steps; else each step is a launch.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

# Samples and units of a program, the smallest first.
SIZES = sorted(
    ((BT, U) for BT in (16, 32, 64) for U in (8, 16, 32, 64)), key=lambda size: size[0] * size[1]
)


class Product(NamedTuple):
    """How much is summed up at a time, in how many parts, and warps and stages of a program.

    ``float32`` is how numbers of that type are multiplied where they may not be rounded to TF32: as
    they are, or as three products of their TF32 parts, by matrix units and about as exactly.
    """

    K: int
    SPLIT: int
    warps: int = 4
    stages: int = 3
    float32: str = "ieee"


# Measured on an H100, at 200 to 1500 units; FP by the units of a program, BP by the bytes of a
# number. What FP gathers costs more than its arithmetic, and parts would not fit in registers.
FP = {8: Product(128, 1), 16: Product(128, 1), 32: Product(64, 4), 64: Product(64, 4)}
BP = {2: Product(256, 8, warps=8), 4: Product(128, 8, warps=8, float32="tf32x3")}


class Tiling(NamedTuple):
    """How the work is cut.

    Attributes:
        BT, U: samples and units of a program.
        parts, batches: how many programs there are, of units and of samples.
        at_once: whether all of them are on the device at once.
        fp, bp: how the products are summed up.
    """

    BT: int
    U: int
    parts: int
    batches: int
    at_once: bool
    fp: Product
    bp: Product


def tiling(B: int, H: int, dtype: torch.dtype, device: torch.device) -> Tiling:
    """Return the smallest programs that are on the device at once, one on each multiprocessor."""
    for BT, U in SIZES:
        batches, parts = -(-B // BT), -(-H // U)
        at_once = batches * parts <= _multiprocessors(device)
        if at_once:
            break
    bp = BP[dtype.itemsize]
    if not _has_tf32(device):
        bp = bp._replace(float32="ieee")
    return Tiling(BT, U, parts, batches, at_once, FP[U], bp)


@functools.cache
def _has_tf32(device: torch.device) -> bool:
    """Return whether the matrix units know TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Return how many programs are sure to run at the same time; 0 in Triton's interpreter, which
    runs one after the other."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count
