"""torch's Adam in one pass over the weights instead of ten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from opennmt_sd.compat import TORCH

# Before, torch has a fused Adam for CUDA alone.
HAS_FUSED_ADAM = TORCH >= (2, 4)


class FusedAdam(torch.optim.Adam):
    """Update as ``torch.optim.Adam`` does, with torch's fused kernel.

    State, checkpoints and options are Adam's: none of them says that this one is fused, so that
    a toolkit goes on from such a checkpoint in its own way, on any torch.
    """

    @classmethod
    def take_over(cls, optimizer: Any) -> Any:
        """Make a plain Adam one of these, where torch has the kernel: weights on the CPU."""
        weights = [w for group in getattr(optimizer, "param_groups", []) for w in group["params"]]
        on_cpu = all(w.device.type == "cpu" and w.is_floating_point() for w in weights)
        if HAS_FUSED_ADAM and on_cpu and type(optimizer) is torch.optim.Adam:
            optimizer.__class__ = cls
        return optimizer

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        given = [group["fused"] for group in self.param_groups]
        for group in self.param_groups:
            group["fused"] = True
        try:
            return super().step(closure)
        finally:
            for group, fused in zip(self.param_groups, given):
                group["fused"] = fused
