"""The masked linear layer: a dropped input, multiplied."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd._compile import traceable
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.checks import check_alike, check_bias, check_keep, check_rows, check_weight
from opennmt_sd.ops.engine import Projection
from opennmt_sd.ops.engines import engine
from opennmt_sd.ops.lowering import operands


@traceable
def masked_linear(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    batch_sizes: Tensor | None = None,
) -> Tensor:
    """Apply a linear layer to a dropped input: ``y = dropped(x) @ weight.T + bias``.

    FP, BP and WG need only the kept units of a structured set.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw: dropped entries are never
            read, kept ones are scaled here.
        keep: what is kept (:meth:`DropoutPattern.draw`), for T steps or one for all; None keeps
            everything.
        weight: ``[N, D]``, as in ``nn.Linear``.
        bias: ``[N]``; default none.
        batch_sizes: int64 ``[T]``, for packed rows: how many each step has, in any order; default
            none.

    Returns:
        ``[T, B, N]`` or packed ``[sum(batch_sizes), N]``. The gradient for x is zero outside the
        kept units.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
    """
    T, B = check_rows(x, batch_sizes, "x", "D", sequences=False)
    check_weight(weight, x.shape[-1])
    check_bias(bias, weight.shape[0])
    check_keep(keep, T, B, x.shape[-1])
    context, (x, weight, bias), lowers = operands(x, weight, bias)
    check_alike(x=x, weight=weight, bias=bias)
    with context:
        return engine(x).masked_linear(
            Projection(
                x=x, keep=keep, weight=weight, bias=bias, batch_sizes=batch_sizes, lowers=lowers
            )
        )
