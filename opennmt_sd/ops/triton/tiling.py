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
    """How much is summed up at a time, in how many parts, and warps and stages of a program."""

    K: int
    SPLIT: int
    warps: int = 4
    stages: int = 3


# Measured on an H100, at 200 to 1500 units.
FP = Product(128, 1)
BP = {2: Product(256, 4), 4: Product(128, 4)}  # by the bytes of a number


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
    return Tiling(BT, U, parts, batches, at_once, FP, BP[dtype.itemsize])


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Return how many programs are sure to run at the same time; 0 in Triton's interpreter, which
    runs one after the other."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count
