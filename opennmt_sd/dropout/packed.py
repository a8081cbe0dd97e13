"""What follows from the sizes of packed rows alone: made once for all that drops from these rows.

Axis names: T time, B batch; R rows of all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from opennmt_sd.compat import is_unwatched
from opennmt_sd.dropout.apply import sent


def of_batch(
    batch_sizes: Tensor, device: torch.device, name: Hashable, make: Callable[[], Tensor]
) -> Tensor:
    """Return what follows from the sizes of packed rows alone, on a device: made and sent once, and
    noted on the sizes for all layers and places that drop from these rows, until they change.

    Args:
        name: of what ``make`` makes, on the CPU.
    """
    if type(batch_sizes) is not Tensor or not is_unwatched() or _captures(device):
        return sent(make(), device)  # no data, or data of a graph's own
    noted: dict[tuple[Hashable, torch.device], tuple[Tensor, Tensor]]
    noted = batch_sizes.__dict__.setdefault("sent", {})
    found = noted.get((name, device))
    if found is None or not torch.equal(found[0], batch_sizes):  # changed in place
        with torch.inference_mode(False):  # or nothing later could save it for backward
            found = batch_sizes.clone(), sent(make(), device)
        noted[name, device] = found
    return found[1]


def _captures(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def rows_of_mask(
    batch_sizes: Tensor, R: int, device: torch.device, samples: int, each_step: bool
) -> Tensor:
    """Return the row of a mask ``[steps * samples, D]`` that each packed row takes, int64 ``[R]``.

    Args:
        batch_sizes, R: int64 ``[T]`` on the CPU, and their sum.
        samples: whose masks differ: 1 or B.
        each_step: whether each step has a mask of its own.
    """

    def rows() -> Tensor:
        T = len(batch_sizes)
        step = torch.arange(T, device="cpu").repeat_interleave(batch_sizes, output_size=R)
        row = step * samples if each_step else torch.zeros_like(step)
        if samples > 1:
            first = batch_sizes.cumsum(0) - batch_sizes  # [T], the first row of each step
            row = row + torch.arange(R, device="cpu") - first.index_select(0, step)
        return row

    return of_batch(batch_sizes, device, ("rows", samples, each_step), rows)
