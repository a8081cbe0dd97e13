"""A drop-in for nn.GRUCell: one step, for loops that a whole-sequence GRU cannot express."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.nn.gru import gru_biases, gru_state
from opennmt_sd.nn.recurrent_cell import RecurrentCell, State
from opennmt_sd.nn.tools import leaf
from opennmt_sd.ops import naive


class StructuredGRUCell(RecurrentCell, nn.GRUCell):
    """One GRU step whose input and recurrent state are dropped by a pattern.

    In evaluation, or with nothing to drop, it is ``nn.GRUCell``.

    Args:
        input_size, hidden_size, bias, device, dtype: as in ``nn.GRUCell``; so are parameters.
        input_dropout: pattern or Case III rate for the input. Default none.
        recurrent_dropout: pattern or Case III rate for h before ``weight_hh``. Default none.

    Raises:
        ValueError: a rate outside [0, 1); ``time="fixed"`` without ``keep`` at the call, because
            a cell cannot know where a sequence begins.

    Recurrent dropout acts on the products alone: the h that the update gate carries over is not
    dropped.

    Source: Sarma et al., NeurIPS 2021, section 3 (NR and RH).

    Example::

        cell = StructuredGRUCell(650, 650, input_dropout=0.5, recurrent_dropout=0.3)
        h = torch.zeros(20, 650)
        for x in torch.randn(35, 20, 650):  # [T, B, D], a step at a time
            h = cell(x, h)
    """

    gates = 3
    states = 1
    masks_state = False  # it enters the new h beside the products too

    @leaf
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        keep: Keep | None = None,
        recurrent_keep: Keep | None = None,
    ) -> Tensor:
        """Take one step.

        Args:
            input: ``[B, input_size]`` or ``[input_size]``, raw.
            hx: h, ``[B, hidden_size]`` or ``[hidden_size]``; default zeros.
            keep, recurrent_keep: what this step keeps of the input and of h (one step:
                ``sets[t]``); default: drawn at this call.

        Returns:
            The new h, undropped.
        """
        (h,) = self._step(input, gru_state(hx), keep, recurrent_keep)
        return h

    def _torch_step(self, input: Tensor, state: State | None) -> State:
        return (nn.GRUCell.forward(self, input, *(state or ())),)

    def _dense_step(self, x: Tensor, state: State, state_keep: Keep | None) -> State:
        if state_keep is None:
            return self._torch_step(x, state)
        (h,) = state
        gates_x = F.linear(x, self.weight_ih, self.bias_ih)
        gates_h = F.linear(state_keep.apply_alone(h), self.weight_hh, self.bias_hh)
        return (naive.gru_gates(gates_x, gates_h, h),)

    def _our_step(
        self, x: Tensor, keep: Keep | None, state: State, state_keep: Keep | None
    ) -> State:
        bias, bias_hn = gru_biases(self.bias_ih, self.bias_hh) if self.bias else (None, None)
        (h,) = state
        _, h = ops.gru_layer(
            x[None], keep, self.weight_ih, bias, self.weight_hh, bias_hn, h, state_keep
        )
        return (h,)
