"""A drop-in for nn.LSTMCell: one step, for loops that a whole-sequence LSTM cannot express."""

from __future__ import annotations

from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.nn.recurrent_cell import RecurrentCell, State
from opennmt_sd.nn.tools import leaf


class StructuredLSTMCell(RecurrentCell, nn.LSTMCell):
    """One LSTM step whose input and recurrent state are dropped by a pattern.

    In evaluation, or with nothing to drop, it is ``nn.LSTMCell``; a small step is torch's own of a
    masked input and state.

    Args:
        input_size, hidden_size, bias, device, dtype: as in ``nn.LSTMCell``; so are parameters.
        input_dropout: pattern or Case III rate for the input. Default none.
        recurrent_dropout: pattern or Case III rate for h before ``weight_hh``. Default none.

    Raises:
        ValueError: a rate outside [0, 1); ``time="fixed"`` without ``keep`` at the call, because
            a cell cannot know where a sequence begins.

    Source: Sarma et al., NeurIPS 2021, section 3 (NR and RH).

    Example::

        cell = StructuredLSTMCell(650, 650, input_dropout=0.5, recurrent_dropout=0.3)
        h = c = torch.zeros(20, 650)
        for x in torch.randn(35, 20, 650):  # [T, B, D], a step at a time
            h, c = cell(x, (h, c))
    """

    gates = 4
    states = 2
    masks_state = True

    @leaf
    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        keep: Keep | None = None,
        recurrent_keep: Keep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            input: ``[B, input_size]`` or ``[input_size]``, raw.
            hx: h and c, ``[B, hidden_size]`` or ``[hidden_size]`` each; default zeros.
            keep, recurrent_keep: what this step keeps of the input and of h (one step:
                ``sets[t]``); default: drawn at this call.

        Returns:
            The new h and c, undropped.
        """
        h, c = self._step(input, hx, keep, recurrent_keep)
        return h, c

    def _torch_step(self, input: Tensor, state: State | None) -> State:
        return nn.LSTMCell.forward(self, input, state)  # type: ignore[arg-type]

    def _dense_step(self, x: Tensor, state: State, state_keep: Keep | None) -> State:
        h, c = state
        h = h if state_keep is None else state_keep.apply_alone(h)
        return self._torch_step(x, (h, c))

    def _our_step(
        self, x: Tensor, keep: Keep | None, state: State, state_keep: Keep | None
    ) -> State:
        bias = self.bias_ih + self.bias_hh if self.bias else None
        h, c = state
        _, h, c = ops.lstm_layer(
            x[None], keep, self.weight_ih, bias, self.weight_hh, h, c, state_keep
        )
        return h, c
