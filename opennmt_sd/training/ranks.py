"""Several processes of one training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a command that says what is wrong before it begins need not wait for these
    from lightning_fabric import Fabric


def is_first_process() -> bool:
    """Tell whether this is a training's first or only process. Before Fabric knows."""
    return {os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK")} == {"0"}


def gathered(fabric: Fabric, own: Any) -> list[Any]:
    """Return what each process gives, in their order, on every one of them; collective."""
    if fabric.world_size == 1:
        return [own]
    import torch

    all_of_them: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(all_of_them, own)
    return all_of_them


def largest(fabric: Fabric, number: int) -> int:
    """Return the largest of the numbers that the processes give; collective."""
    if fabric.world_size == 1:
        return number
    import torch

    flag = torch.tensor(number, device=fabric.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return int(flag)
