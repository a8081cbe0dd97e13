"""A drop-in for nn.LSTMCell: one step, for loops that a whole-sequence LSTM cannot express."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.nn.tools import leaf
from opennmt_sd.ops.checks import check_keep


class StructuredLSTMCell(Structured, nn.LSTMCell):
    """One LSTM step whose input and recurrent state are dropped by a pattern.

    In evaluation, or with nothing to drop, it is ``nn.LSTMCell``.

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

    input_dropout = PatternAttribute()
    recurrent_dropout = PatternAttribute()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: DropoutPattern | float | None = None,
        recurrent_dropout: DropoutPattern | float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.input_dropout = DropoutPattern.of(input_dropout)
        self.recurrent_dropout = DropoutPattern.of(recurrent_dropout)

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
        if not self.training:
            return super().forward(input, hx)
        B = input.shape[0] if input.dim() == 2 else 1
        dense = not ops.leaves_out(input)
        keep = self._sets(keep, "keep", self.input_dropout, B, self.input_size, dense)
        recurrent_keep = self._sets(
            recurrent_keep, "recurrent_keep", self.recurrent_dropout, B, self.hidden_size, dense
        )
        if keep is None and recurrent_keep is None:
            return super().forward(input, hx)

        x = input if input.dim() == 2 else input.unsqueeze(0)  # [B, D]
        if hx is None:
            h = c = x.new_zeros(B, self.hidden_size)
        else:
            h, c = (s if s.dim() == 2 else s.unsqueeze(0) for s in hx)
        if dense:
            h, c = self._masked(x, h, c, keep, recurrent_keep)
        else:
            bias = self.bias_ih + self.bias_hh if self.bias else None
            _, h, c = ops.lstm_layer(
                x[None], keep, self.weight_ih, bias, self.weight_hh, h, c, recurrent_keep
            )
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))

    def _masked(
        self, x: Tensor, h: Tensor, c: Tensor, keep: Keep | None, recurrent_keep: Keep | None
    ) -> tuple[Tensor, Tensor]:
        """Take the step as torch does, on what is kept: no kernel would leave anything out."""
        B = len(x)
        check_keep(keep, 1, B, self.input_size)
        check_keep(recurrent_keep, 1, B, self.hidden_size)
        x = x if keep is None else keep.apply(x[None])[0]
        h = h if recurrent_keep is None else recurrent_keep.apply(h[None])[0]
        return super().forward(x, (h, c))

    def _sets(
        self, given: Keep | None, name: str, pattern: DropoutPattern, B: int, D: int, dense: bool
    ) -> Keep | None:
        if given is not None or not pattern.active:
            return given
        if pattern.time == "fixed":
            raise ValueError(
                f'a cell with time="fixed" needs {name}=: draw the sets once a sequence with '
                "pattern.draw(1, B, D) and pass them at every step"
            )
        return self._draw(pattern, 1, B, D, dense=dense)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, input_dropout={self.input_dropout}, "
            f"recurrent_dropout={self.recurrent_dropout}"
        )
