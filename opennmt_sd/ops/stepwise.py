"""The masked linear layer, a step at a time: for loops that need y_t before x_{t+1} exists."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.autocast import lowered
from opennmt_sd.ops.checks import check_alike, check_bias, check_floating, check_keep, check_weight
from opennmt_sd.ops.engine import StepwiseLinear
from opennmt_sd.ops.engines import engine, refuse_transforms


@dataclass(frozen=True, eq=False)
class PreparedWeight:
    """A weight prepared for stepwise use: for one forward and backward pass."""

    handle: StepwiseLinear
    shape: torch.Size
    like: Tensor  # empty: the weight's dtype and device


@uncompiled
def prepare(weight: Tensor, bias: Tensor | None = None) -> PreparedWeight:
    """Prepare ``weight [N, D]`` (and ``bias [N]``) for :func:`masked_linear_step`.

    The handle lives for one forward and backward pass: steps make no weight gradient of their
    own; one time-batched gradient is made once all steps have run backward.
    """
    check_weight(weight, weight.shape[-1])
    check_bias(bias, weight.shape[0])
    check_floating(weight, "weight")
    _, (weight, bias) = lowered(weight, bias)
    check_alike(weight=weight, bias=bias)
    handle = engine(weight).prepare(weight, bias)
    return PreparedWeight(handle, weight.shape, weight.detach().new_empty(0))


@uncompiled
def masked_linear_step(
    handle: PreparedWeight, x: Tensor, keep: Keep | None = None, t: int = 0
) -> Tensor:
    """Take one step of :func:`masked_linear`, for a loop that needs y_t before x_{t+1} exists.

    Args:
        handle: from :func:`prepare`.
        x: ``[n, D]``, raw: the first n samples of the batch. Sequences may end, as in packed rows.
        keep: keep sets of the whole sequence (or one for all steps); None keeps everything.
        t: the step whose set applies.

    Returns:
        ``[n, N]``.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit. IndexError: no step t.
        RuntimeError: in ``torch.func`` or forward mode, a handle from outside of it.
    """
    N, D = handle.shape
    if x.dim() != 2 or x.shape[1] != D:
        raise ValueError(f"x must be [n, {D}] for a prepared weight [{N}, {D}], got "
                         f"{list(x.shape)}")  # fmt: skip
    if keep is not None:
        if not 0 <= t < max(keep.steps, 1) and keep.steps != 1:
            raise IndexError(f"step {t} is out of range: the keep sets hold {keep.steps} steps")
        check_keep(keep, keep.steps, x.shape[0], D, ended=True)
    refuse_transforms(handle.handle, "prepare")
    context, (x,) = lowered(x)
    check_alike(x=x, weight=handle.like)
    with context:
        return handle.handle.step(x, keep, t)
