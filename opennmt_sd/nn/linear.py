"""A drop-in for nn.Linear behind nn.Dropout: the product shrinks to the kept units."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.nn.layout import time_first


class MaskedLinear(Structured, nn.Linear):
    """Drops its input by a pattern, then projects it. In evaluation it is ``nn.Linear``.

    Args:
        in_features, out_features, bias, device, dtype: as in ``nn.Linear``; so are parameters.
        dropout: a pattern, or a rate for Case III. Default 0.5.
        batch_first: whether a 3-D input is ``[B, T, D]``. Default False: the first axis is time.
            Passing ``[B, T, D]`` without it would share sets along the wrong axis.

    Shapes:
        ``[T, B, D]`` to ``[T, B, N]``; also ``[B, T, D]`` with ``batch_first``, ``[B, D]`` as one
        step, or a ``PackedSequence``.

    Raises:
        ValueError: a rate outside [0, 1), or shapes that do not fit.

    Source: Sarma et al., NeurIPS 2021, section 3 (the FC layer).
    """

    dropout = PatternAttribute()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        dropout: DropoutPattern | float = 0.5,
        batch_first: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.dropout = DropoutPattern.of(dropout)
        self.batch_first = batch_first

    def forward(  # type: ignore[override]
        self, input: Tensor | PackedSequence, keep: Keep | None = None
    ) -> Tensor | PackedSequence:
        """Project; ``keep`` replaces the module's own draw in training (the input stays raw)."""
        drops = self.training and (keep is not None or self.dropout.active)

        def project(x: Tensor, batch_sizes: Tensor | None, T: int, B: int) -> Tensor:
            if not drops:
                return F.linear(x, self.weight, self.bias)
            sets = keep or self.dropout.draw(T, B, x.shape[-1], self.generator)
            return ops.masked_linear(x, sets, self.weight, self.bias, batch_sizes=batch_sizes)

        if not drops and isinstance(input, Tensor):
            return F.linear(input, self.weight, self.bias)
        return time_first(input, self.batch_first, project)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"
