"""A drop-in for nn.GRU with structured dropout between layers, on the input and on the state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import compat, ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.recurrent import Recurrent
from opennmt_sd.nn.states import State
from opennmt_sd.nn.tools import leaf


class StructuredGRU(Recurrent, nn.GRU):
    """``nn.GRU`` whose dropped units are left out of the products.

    Parameters, their names and shapes, and the positional arguments are ``nn.GRU``'s. In
    evaluation, or with nothing to drop, it runs torch's own computation.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as
            in ``nn.GRU``.
        dropout: pattern, or Case III rate, between layers. Default 0.
        input_dropout: pattern or rate on the first layer's input. Default none. Keyword only.
        recurrent_dropout: pattern or rate on h before ``weight_hh``, in every layer, one draw a
            direction; set t acts on the state that enters position t. Default none. Keyword only.

    Both directions of a layer read one dropped input. Recurrent dropout acts on the products alone:
    the h that the update gate carries over, and the h that is returned, are undropped.
    ``time="fixed"`` means one draw a forward call.

    Attributes:
        exact: whether what drops nothing is torch's own computation, bit for bit, double backward
            included. Default True. False: packed sequences run on the CPU's native kernels then
            too, and equal torch's within rounding.

    The result's dtype is ``nn.GRU``'s, under autocast as well: on a CPU the state's.
    bfloat16 is what products are made in there, where the processor can. float16 has no kernels on
    a CPU: what is not recurrent runs as torch's own, masked; recurrent dropout runs in float32.

    Raises:
        ValueError: a rate outside [0, 1). NotImplementedError: ``jit.script``.
        RuntimeError: double backward outside the naive engine.

    Source: Sarma et al., NeurIPS 2021, section 3 (NR and RH), with a GRU's products. That what is
    carried over must not be dropped: Semeniuta et al., "Recurrent Dropout without Memory Loss",
    2016, section 3.

    Example::

        gru = StructuredGRU(650, 650, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
        out, h = gru(x)  # x [T, B, 650]
    """

    name = "a GRU"
    gates = 3
    state_names = ("hidden",)
    stock = staticmethod(compat.gru)
    autocast_on_cpu = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: DropoutPattern | float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: DropoutPattern | float | None = None,
        recurrent_dropout: DropoutPattern | float | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype,
            dropout=dropout, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout,
        )  # fmt: skip

    @leaf
    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        input_keep: Keep | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run as ``nn.GRU.forward``: also packed, unbatched, with or without an initial state.

        Args:
            input: ``[T, B, D]`` (``[B, T, D]`` with ``batch_first``), ``[T, D]``, or packed; raw.
            hx: h_0, ``[layers * directions, B, H]``; default zeros.
            input_keep: keep sets for the first layer's input in training, instead of a draw.

        Returns:
            The output in the input's layout, and h_n.
        """
        output, (h,) = self._forward(input, gru_state(hx), input_keep)
        return output, h

    def _our_direction(
        self, x: Tensor, keep: Keep | None, weights: list[Tensor], state: State,
        state_keep: Keep | None, sizes: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, State]:  # fmt: skip
        weight_ih, weight_hh, *biases = weights
        bias, bias_hn = gru_biases(*biases) if biases else (None, None)
        (h,) = state
        y, h = ops.gru_layer(
            x, keep, weight_ih, bias, weight_hh, bias_hn, h, state_keep, batch_sizes=sizes,
            reverse=reverse,
        )  # fmt: skip
        return y, (h,)


def gru_state(hx: Tensor | None) -> State | None:
    """Return a given state as a tuple.

    Raises:
        TypeError: it is one already: an LSTM's.
    """
    if hx is not None and not isinstance(hx, Tensor):
        raise TypeError(
            f"hx of a GRU must be one tensor, its h, got {type(hx).__name__}: there is no cell"
        )
    return None if hx is None else (hx,)


def gru_biases(bias_ih: Tensor, bias_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Return a GRU's biases ``[3H]`` and ``[H]`` as :func:`opennmt_sd.ops.gru_layer` has them."""
    H = len(bias_hh) // 3
    return bias_ih + F.pad(bias_hh[: 2 * H], (0, H)), bias_hh[2 * H :]
