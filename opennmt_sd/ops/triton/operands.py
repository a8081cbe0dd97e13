"""What the kernels read about the steps of a sequence, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from opennmt_sd.dropout import Keep
from opennmt_sd.dropout.packed import of_batch
from opennmt_sd.ops.triton.tiles import list_kept


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a sequence, and what each of them drops.

    Attributes:
        T, B, R: steps, samples, and rows of all steps.
        reverse: from the last step to the first.
        sizes, offsets: int32 ``[T]``, how many samples are alive at each step, and the first of its
            rows; None where it is B at every step.
        dropped: uint8 ``[S, 1 or B, H]``, None for nothing.
        kept, count: int32 ``[S, H]`` and ``[S]``: the kept units, in front, and how many; None
            where the samples' sets differ.
        scale: of what is kept.
    """

    T: int
    B: int
    R: int
    reverse: bool
    sizes: Tensor | None
    offsets: Tensor | None
    dropped: Tensor | None
    kept: Tensor | None
    count: Tensor | None
    scale: float

    @classmethod
    def of(
        cls, x: Tensor, B: int, keep: Keep | None, batch_sizes: Tensor | None, reverse: bool
    ) -> Steps:
        """Send what x ``[T, B, .]``, or packed, needs to its device."""
        sizes = offsets = dropped = kept = count = None
        if batch_sizes is None:
            T, R = len(x), len(x) * B
        else:
            T, R = len(batch_sizes), len(x)
            both = of_batch(batch_sizes, x.device, "sizes and offsets", lambda: _first(batch_sizes))
            sizes, offsets = both
        if keep is not None:
            dropped = keep.dropped(x.device).view(torch.uint8)
            if dropped.shape[1] == 1:
                kept, count = listed(dropped)
        scale = 1.0 if keep is None else keep.scale
        return cls(T, B, R, reverse, sizes, offsets, dropped, kept, count, scale)


def _first(batch_sizes: Tensor) -> Tensor:
    """Return the sizes of steps and their first rows, int32 ``[2, T]``."""
    return torch.stack([batch_sizes, batch_sizes.cumsum(0) - batch_sizes]).int()


def listed(dropped: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units that each step keeps, ``[S, H]``, in front, and how many, ``[S]``."""
    S, _, H = dropped.shape
    kept = torch.empty(S, H, dtype=torch.int32, device=dropped.device)
    count = torch.empty(S, dtype=torch.int32, device=dropped.device)
    with torch.cuda.device_of(dropped):  # Triton launches on the current one
        list_kept[(S,)](dropped, kept, count, H, BLOCK=triton.next_power_of_2(H))
    return kept, count
