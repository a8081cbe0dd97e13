"""The loss of a projection onto the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from opennmt_sd._compile import uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.checks import check_alike, check_bias, check_keep, check_rows, check_weight
from opennmt_sd.ops.engine import Loss, Projection
from opennmt_sd.ops.engines import engine
from opennmt_sd.ops.lowering import operands


@uncompiled
def projected_nll(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    batch_sizes: Tensor | None = None,
    label_smoothing: float = 0.0,
    factor: float = 1.0,
    hits: bool = True,
) -> tuple[Tensor, Tensor]:
    """Give the loss of a classifier on a dropped input: :func:`masked_linear`, cross entropy.

    The two are one op since a buffer of logits that nobody else sees can become its own gradient:
    one ``[rows, V]`` buffer is held, where ``F.linear`` and ``F.cross_entropy`` hold up to three.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw: dropped entries are never read.
        keep: what is kept of x; None keeps everything.
        weight: ``[V, D]``.
        bias: ``[V]``; None for none.
        targets: int64, one for each row of x, in [0, V).
        batch_sizes: int64 ``[T]``, for packed rows: how many each step has, in any order; default
            none.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``. Default 0.
        factor: what the sum over all rows is multiplied by. Default 1.
        hits: whether anybody reads the second result; a GPU has less to do if not. Default True.

    Returns:
        ``factor`` times the sum of the losses, a scalar in nats, float32 where x is float32 or
        lower; and of how many rows the target has the largest logit, a scalar int64 (with
        ``hits=False`` it may be anything).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
        IndexError or RuntimeError (torch's own): a target outside [0, V). RuntimeError: double
        backward outside the naive engine.
    """
    T, B = check_rows(x, batch_sizes, "x", "D", sequences=False)
    check_weight(weight, x.shape[-1])
    check_bias(bias, weight.shape[0])
    check_keep(keep, T, B, x.shape[-1])
    if targets.shape != x.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets must be int64 {list(x.shape[:-1])}, one for each row of x; got "
            f"{targets.dtype} {list(targets.shape)}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    context, (x, weight, bias), lowers = operands(x, weight, bias)
    check_alike(x=x, weight=weight, bias=bias)
    with context:
        return engine(x).projected_nll(
            Projection(
                x=x, keep=keep, weight=weight, bias=bias, batch_sizes=batch_sizes, lowers=lowers
            ),
            Loss(targets=targets, label_smoothing=label_smoothing, factor=factor, hits=hits),
        )
