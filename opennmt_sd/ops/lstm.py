"""One LSTM layer in one direction, and the gates of one step."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from opennmt_sd._compile import traceable, uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.checks import (
    check_alike,
    check_floating,
    check_layer,
    check_one,
)
from opennmt_sd.ops.engine import LSTMLayer
from opennmt_sd.ops.engines import engine
from opennmt_sd.ops.lowering import operands


@traceable
def lstm_layer(
    x: Tensor,
    keep: Keep | None,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    state_keep: Keep | None = None,
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one LSTM layer in one direction: :func:`masked_linear`, then the recurrence.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw.
        keep: what is kept of x; None keeps everything.
        weight_ih: ``[4H, D]``.
        bias: ``[4H]``, the sum of both of ``nn.LSTM``'s; None for none.
        weight_hh: ``[4H, H]``.
        h, c: initial state, ``[B, H]`` each.
        state_keep: what is kept of the recurrent state; set t acts on the h that enters position
            t, the given one included. The h and c that come back are undropped. Default None.
        batch_sizes: int64 ``[T]``, for packed rows; default none.
        reverse: from the last step to the first. Default False.

    Returns:
        All h (``[T, B, H]`` or packed), the final h and the final c (``[B, H]`` each).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
    """
    context, (x, weight_ih, bias, weight_hh, h, c), lowers = operands(
        x, weight_ih, bias, weight_hh, h, c
    )
    layer = LSTMLayer(
        x=x, keep=keep, weight_ih=weight_ih, bias=bias, weight_hh=weight_hh, h=h, c=c,
        state_keep=state_keep, batch_sizes=batch_sizes, reverse=reverse, lowers=lowers,
    )  # fmt: skip
    check_layer(layer, 4, h=h, c=c)
    check_alike(x=x, weight_ih=weight_ih, bias=bias, weight_hh=weight_hh, h=h, c=c)
    with context:
        return engine(x).lstm_layer(layer)


def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None = None,
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence of :func:`lstm_layer` alone. Deprecated: ends with version 0.4.

    Args:
        gates_x: ``[T, B, 4H]`` or packed: the input's part of the gates, both biases included.
        weight_hh, h, c, keep, batch_sizes, reverse: as in :func:`lstm_layer`.
    """
    warnings.warn(
        "opennmt_sd.ops.lstm is deprecated and ends with version 0.4 (June 2027): use lstm_layer, "
        "which takes the layer's input and weight_ih",
        DeprecationWarning,
        stacklevel=2,
    )
    one = torch.eye(gates_x.shape[-1], dtype=gates_x.dtype, device=gates_x.device)
    return lstm_layer(
        gates_x, None, one, None, weight_hh, h, c, keep, batch_sizes=batch_sizes, reverse=reverse
    )


@uncompiled
def lstm_gates(gates: Tensor, c: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Do the pointwise part of one LSTM step.

    Args:
        gates: ``[B, 4H]``, before activation.
        c: ``[B, H]``.
        added: ``[B, 4H]``, to the gates, before anything else; default nothing. A GPU then needs
            no launch for the sum.

    Returns:
        h and c, ``[B, H]`` each; of two dtypes, the wider one.
    """
    if gates.dim() != 2 or c.dim() != 2 or gates.shape != (c.shape[0], 4 * c.shape[1]):
        raise ValueError(
            f"gates must be [B, 4H] and c [B, H], got {list(gates.shape)} and {list(c.shape)}"
        )
    check_floating(gates, "gates")
    check_floating(c, "c")
    check_one("device", gates=gates, c=c, added=added)
    if added is not None and (added.shape, added.dtype) != (gates.shape, gates.dtype):
        raise ValueError(
            f"added must be {gates.dtype} {list(gates.shape)}, as gates are; got {added.dtype} "
            f"{list(added.shape)}"
        )
    return engine(gates).lstm_gates(gates, c, added)
