"""The loss of a projection onto the vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.ops.engine import Loss, Projection
from opennmt_sd.ops.naive.linear import masked_linear

# torch would skip targets of -100 in silence: out of range, they are a mistake.
NO_TARGET = torch.iinfo(torch.int64).min


def projected_nll(projection: Projection, loss: Loss) -> tuple[Tensor, Tensor]:
    return nll_of(masked_linear(projection), loss)


def nll_of(logits: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return the scaled sum of the losses, and the hits, of logits ``[.., V]``."""
    logits = logits.flatten(0, -2)  # [R, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = loss.targets.flatten()
    nll = F.cross_entropy(
        logits, targets, reduction="sum", label_smoothing=loss.label_smoothing,
        ignore_index=NO_TARGET,
    )  # fmt: skip
    hits = (logits.argmax(1) == targets).sum() if loss.hits else targets.new_empty(())
    return nll * loss.factor, hits
