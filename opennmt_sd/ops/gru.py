"""One GRU layer in one direction, and the gates of one step."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from opennmt_sd._compile import traceable, uncompiled
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.checks import (
    check_alike,
    check_bias,
    check_floating,
    check_layer,
    check_one,
)
from opennmt_sd.ops.engine import GRULayer
from opennmt_sd.ops.engines import engine
from opennmt_sd.ops.lowering import operands


@traceable
def gru_layer(
    x: Tensor,
    keep: Keep | None,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    bias_hn: Tensor | None,
    h: Tensor,
    state_keep: Keep | None = None,
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run one GRU layer in one direction: :func:`masked_linear`, then the recurrence.

    It is ``nn.GRU``'s, whose reset gate acts behind the product. With x and h as they are kept::

        r = sigmoid(W_ir x + W_hr h + b_r)    q  = W_hn h + bias_hn
        z = sigmoid(W_iz x + W_hz h + b_z)    n  = tanh(W_in x + b_n + r q)
                                              h' = (1 - z) n + z h

    The last line has the h that nothing was dropped from: dropout acts on what is multiplied.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw.
        keep: what is kept of x; None keeps everything.
        weight_ih: ``[3H, D]``.
        bias: ``[3H]``: ``nn.GRU``'s bias_ih, and the first 2H of its bias_hh added; None for none.
        weight_hh: ``[3H, H]``.
        bias_hn: ``[H]``: the last H of ``nn.GRU``'s bias_hh; None for none.
        h: initial state, ``[B, H]``.
        state_keep: what is kept of the state in the products, default all; set t acts on the h that
            enters position t, the given one included. The h that come back are undropped.
        batch_sizes: int64 ``[T]``, for packed rows; default none.
        reverse: from the last step to the first. Default False.

    Returns:
        All h (``[T, B, H]`` or packed) and the final h (``[B, H]``).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the
    reset gate where cuDNN and PyTorch have it.
    """
    context, (x, weight_ih, bias, weight_hh, bias_hn, h), lowers = operands(
        x, weight_ih, bias, weight_hh, bias_hn, h
    )
    layer = GRULayer(
        x=x, keep=keep, weight_ih=weight_ih, bias=bias, weight_hh=weight_hh, bias_hn=bias_hn, h=h,
        state_keep=state_keep, batch_sizes=batch_sizes, reverse=reverse, lowers=lowers,
    )  # fmt: skip
    check_layer(layer, 3, h=h)
    check_bias(bias_hn, weight_hh.shape[1], "bias_hn")
    check_alike(x=x, weight_ih=weight_ih, bias=bias, weight_hh=weight_hh, bias_hn=bias_hn, h=h)
    with context:
        return engine(x).gru_layer(layer)


@uncompiled
def gru_gates(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    """Do the pointwise part of one GRU step.

    Args:
        gates_x: ``[B, 3H]``: the product of the input with weight_ih, and bias_ih.
        gates_h: ``[B, 3H]``: the product of the state, as it is kept, with weight_hh, and bias_hh.
        h: the state, undropped, ``[B, H]``.

    Returns:
        The new h, ``[B, H]``; of several dtypes, the widest.
    """
    given = {"gates_x": gates_x, "gates_h": gates_h, "h": h}
    wanted = (h.shape[0], 3 * h.shape[1]) if h.dim() == 2 else None
    if not gates_x.shape == gates_h.shape == wanted:
        raise ValueError(
            "gates_x and gates_h must be [B, 3H] and h [B, H], got "
            f"{list(gates_x.shape)}, {list(gates_h.shape)} and {list(h.shape)}"
        )
    for name, x in given.items():
        check_floating(x, name)
    check_one("device", **given)
    widest = reduce(torch.promote_types, (x.dtype for x in given.values()))
    return engine(gates_x).gru_gates(*(x.to(widest) for x in given.values()))
