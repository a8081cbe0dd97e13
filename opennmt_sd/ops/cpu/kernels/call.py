"""What every call of a kernel needs: addresses, operands, memory for results."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from opennmt_sd.ops.cpu import bfloat16
from opennmt_sd.ops.cpu.binding import records, require_native

DTYPES = {torch.float32: "f32", torch.float64: "f64"}

LARGE = 1 << 20  # bytes


class Sets(NamedTuple):
    """What is kept of one input of a layer; a random pattern gives a state ``mask``
    (bool ``[T or 1, B, H]``) instead of ``idx`` and ``counts``."""

    idx: Tensor | None = None
    counts: Tensor | None = None
    scale: float = 1.0
    mask: Tensor | None = None


class Rows(NamedTuple):
    """How the rows of a sequence lie: T steps, one after the other, ``batch_sizes[t]`` rows each;
    without ``batch_sizes``, all the same number."""

    T: int
    batch_sizes: Tensor | None

    @classmethod
    def of(cls, x: Tensor, batch_sizes: Tensor | None) -> Rows:
        """Return how the rows of x lie, ``[T, B, D]`` or packed ``[R, D]``."""
        return cls((x if batch_sizes is None else batch_sizes).shape[0], batch_sizes)

    def sizes(self, R: int) -> list[int]:
        """Return the rows of each step, R in all."""
        if self.batch_sizes is not None:
            return self.batch_sizes.tolist()
        return [R // self.T] * self.T if self.T else []


def keep_operand(
    at: Addresses, sets: Sets, T: int, D: int, B: int | None = None
) -> records.KeepOperand:
    """Return what is kept of D units in T steps; a mask is that of a state ``[B, D]``, and an
    input (B is None) has none."""
    idx, counts, mask = sets.idx, sets.counts, None if B is None else sets.mask
    if (idx is None) is not (counts is None):
        raise ValueError("keep sets need both idx and count, or neither")
    S = 1 if idx is None else idx.shape[0]
    if S not in (1, T):
        raise ValueError(f"{S} keep sets do not fit {T} steps: 1 or {T} are needed")
    M = 0 if mask is None else mask.shape[0]
    if mask is not None and M not in (1, T):
        raise ValueError(f"a mask of {M} steps does not fit {T} steps: 1 or {T} are needed")
    return records.KeepOperand(
        idx=at(idx, S, D, dtype=torch.int32), count=at(counts, S, dtype=torch.int32), sets=S,
        scale=sets.scale, mask=at(mask, M, B or 0, D, dtype=torch.bool), mask_sets=M,
    )  # fmt: skip


class Addresses:
    """Addresses for one native call; holds what had to be copied until the call is over."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: list[Tensor] = []

    def __call__(self, x: Tensor | None, *shape: int, dtype: torch.dtype | None = None) -> int:
        if x is None:
            return 0
        dtype = dtype or self.dtype
        if x.dtype is not dtype or (shape and x.shape != shape) or not x.is_cpu:
            raise ValueError(
                f"a CPU kernel needs {dtype} {list(shape or x.shape)}, "
                f"got {x.dtype} {list(x.shape)} on {x.device}"
            )
        x = x.contiguous()
        if x.is_neg():
            x = x.resolve_neg()
        self.held.append(x)
        address = x.data_ptr()
        if not address and x.numel():
            raise ValueError(f"a CPU kernel needs values in memory, a {type(x).__name__} has none")
        return address


def new(like: Tensor, *shape: int) -> Tensor:
    """Return an empty tensor. A large one lies in memory that the native module keeps for the next
    call: fresh from the system, its pages would be cleared first, every time."""
    if math.prod(shape) * like.element_size() < LARGE:
        return like.new_empty(shape)
    return from_dlpack(getattr(require_native(), f"fresh_{suffix(like.dtype)}")(shape))


def team(x: Tensor) -> int:
    """Return the threads for a few passes over x: waking them costs more than a little work."""
    return torch.get_num_threads() if x.numel() > 20_000 else 1


def suffix(dtype: torch.dtype) -> str:
    if dtype not in DTYPES:
        raise TypeError(f"the CPU kernels are for torch.float32 and torch.float64, got {dtype}")
    return DTYPES[dtype]


def call(name: str, dtype: torch.dtype, *, threads: int = 0, **operands: Any) -> None:
    """Run a kernel on as many threads as torch has, or ``threads``."""
    kernel = getattr(require_native(), f"{name}_{suffix(dtype)}")
    kernel(threads=threads or torch.get_num_threads(), **operands)


def product(name: str, dtype: torch.dtype, lowers: bool, **operands: Any) -> None:
    """Run a kernel that multiplies: float32 in bfloat16, if it ``lowers`` or torch's switch says
    so, and the processor can."""
    kind = multiplied_in(dtype, lowers)
    getattr(require_native(), f"{name}_{kind}")(threads=torch.get_num_threads(), **operands)


def multiplied_in(dtype: torch.dtype, lowers: bool) -> str:
    """Return the suffix of the kernels that multiply."""
    return "bf16" if dtype == torch.float32 and bfloat16.used(lowers) else suffix(dtype)
