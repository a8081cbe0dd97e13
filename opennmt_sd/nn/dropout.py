"""A plain dropout layer that takes a pattern."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd.dropout import DropoutPattern
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.nn.layout import time_first
from opennmt_sd.nn.tools import leaf


class StructuredDropout(Structured, nn.Module):
    """Drops and scales its input by a pattern; does nothing in evaluation.

    Prefer :class:`MaskedLinear` or the dropout of :class:`StructuredLSTM` where a product follows:
    they skip the dropped units instead of writing zeros.

    Args:
        dropout: a pattern, or a rate for Case III. Default 0.5.
        batch_first: whether a 3-D input is ``[B, T, D]``. Default False: the first axis is time.
            Passing ``[B, T, D]`` without it would share sets along the wrong axis.

    Shapes:
        ``[T, B, D]``, ``[B, T, D]`` with ``batch_first``, ``[B, D]`` as one step, or a
        ``PackedSequence``; the output has the input's.

    Raises:
        ValueError: a rate outside [0, 1), or another number of axes.

    Source: Sarma et al., NeurIPS 2021, section 3.

    Example::

        drop = StructuredDropout(0.5)
        y = drop(torch.randn(35, 20, 650))  # at each step the whole batch loses the same units
    """

    dropout = PatternAttribute()

    def __init__(self, dropout: DropoutPattern | float = 0.5, batch_first: bool = False) -> None:
        super().__init__()
        self.dropout = DropoutPattern.of(dropout)
        self.batch_first = batch_first

    @leaf
    def forward(self, input: Tensor | PackedSequence) -> Tensor | PackedSequence:
        """Drop and scale in training; give the input back in evaluation."""

        def drop(x: Tensor, batch_sizes: Tensor | None, T: int, B: int) -> Tensor:
            keep = self._draw(self.dropout, T, B, x.shape[-1], dense=True)
            return x if keep is None else keep.apply(x, batch_sizes)

        if not (self.training and self.dropout.active):
            return input
        return time_first(input, self.batch_first, drop)

    def extra_repr(self) -> str:
        return f"{self.dropout}" + (", batch_first=True" if self.batch_first else "")
