"""A drop-in for nn.LSTM with structured dropout between layers, on the input and on the state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import compat, ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.recurrent import Recurrent
from opennmt_sd.nn.states import State
from opennmt_sd.nn.tools import leaf


class StructuredLSTM(Recurrent, nn.LSTM):
    """``nn.LSTM`` whose dropped units are left out of the products.

    Parameters, their names and shapes, and the positional arguments are ``nn.LSTM``'s. In
    evaluation, or with nothing to drop, it runs torch's own computation.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as
            in ``nn.LSTM``.
        dropout: pattern, or Case III rate, between layers. Default 0.
        proj_size: not supported; must be 0.
        input_dropout: pattern or rate on the first layer's input. Default none. Keyword only.
        recurrent_dropout: pattern or rate on h before ``weight_hh``, in every layer, one draw a
            direction; set t acts on the state that enters position t. Default none. Keyword only.

    Both directions of a layer read one dropped input. The h and c that are returned are undropped.
    ``time="fixed"`` means one draw a forward call.

    Attributes:
        exact: whether what drops nothing is torch's own computation, bit for bit, double backward
            included. Default True. False: packed sequences run on the CPU's native kernels then
            too; these are quicker (2x to 4x), and equal torch's within rounding.

    The result's dtype is ``nn.LSTM``'s, under autocast as well. bfloat16 on a CPU is
    what products are made in, where the processor can. float16 has no kernels there: what is not
    recurrent runs as torch's own, masked; recurrent dropout runs in float32.

    Raises:
        ValueError: a rate outside [0, 1). NotImplementedError: ``proj_size``, ``jit.script``.
        RuntimeError: double backward outside the naive engine.

    Source: Sarma et al., NeurIPS 2021, section 3 (NR and RH).

    Example::

        lstm = StructuredLSTM(650, 650, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
        out, (h, c) = lstm(x)  # x [T, B, 650]
    """

    name = "an LSTM"
    gates = 4
    state_names = ("hidden[0]", "hidden[1]")
    stock = staticmethod(compat.lstm)
    autocast_on_cpu = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: DropoutPattern | float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: DropoutPattern | float | None = None,
        recurrent_dropout: DropoutPattern | float | None = None,
    ) -> None:
        refuse_proj_size(proj_size)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype,
            dropout=dropout, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout,
        )  # fmt: skip

    @leaf
    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        input_keep: Keep | None = None,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Run as ``nn.LSTM.forward``: also packed, unbatched, with or without an initial state.

        Args:
            input: ``[T, B, D]`` (``[B, T, D]`` with ``batch_first``), ``[T, D]``, or packed; raw.
            hx: h_0 and c_0, ``[layers * directions, B, H]`` each; default zeros.
            input_keep: keep sets for the first layer's input in training, instead of a draw.

        Returns:
            The output in the input's layout, and (h_n, c_n).
        """
        output, (h, c) = self._forward(input, hx, input_keep)
        return output, (h, c)

    def _our_direction(
        self, x: Tensor, keep: Keep | None, weights: list[Tensor], state: State,
        state_keep: Keep | None, sizes: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, State]:  # fmt: skip
        weight_ih, weight_hh, *biases = weights
        bias = biases[0] + biases[1] if biases else None
        h, c = state
        y, h, c = ops.lstm_layer(
            x, keep, weight_ih, bias, weight_hh, h, c, state_keep, batch_sizes=sizes,
            reverse=reverse,
        )  # fmt: skip
        return y, (h, c)


def refuse_proj_size(proj_size: Any) -> None:
    """Refuse what the ops do not have.

    Raises:
        NotImplementedError: ``proj_size`` is not 0.
    """
    if proj_size:
        raise NotImplementedError(
            f"proj_size={proj_size} is not supported: use proj_size=0 and an nn.Linear behind the "
            "LSTM, or keep nn.LSTM for this layer"
        )
