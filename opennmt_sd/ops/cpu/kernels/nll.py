"""The negative log-likelihood of targets under rows of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd.ops.cpu.kernels.call import Addresses, call


def nll_(logits: Tensor, targets: Tensor, smoothing: float, factor: float) -> tuple[Tensor, Tensor]:
    """Return the smoothed negative log-likelihood of each target under a row of ``[R, V]``, and
    whether it is the largest one: ``[R]`` each.

    The logits become the gradient of ``factor`` times the loss; with factor 0 they are waste.

    Raises:
        IndexError: a target outside [0, V).
    """
    (R, V), at = logits.shape, Addresses(logits.dtype)
    if not logits.is_contiguous():  # a copy would be overwritten in its place
        raise ValueError("logits must be contiguous")
    losses, hits = logits.new_empty(R), logits.new_empty(R, dtype=torch.bool)
    call(
        "nll", logits.dtype, logits=at(logits), targets=at(targets, R, dtype=torch.int64), R=R, V=V,
        smoothing=smoothing, factor=factor, losses=at(losses), hits=at(hits, dtype=torch.bool),
    )  # fmt: skip
    return losses, hits
