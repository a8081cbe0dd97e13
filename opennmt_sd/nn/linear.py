"""A drop-in for nn.Linear behind nn.Dropout: the product shrinks to the kept units."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.base import PatternAttribute, Structured
from opennmt_sd.nn.layout import sorted_as, time_first
from opennmt_sd.nn.tools import leaf
from opennmt_sd.ops.checks import check_keep, check_weight

Operands = tuple[Tensor, Tensor, "Tensor | None"]  # x, weight, bias


class MaskedLinear(Structured, nn.Linear):
    """Drops its input by a pattern, then projects it. In evaluation it is ``nn.Linear``.

    A small product, where leaving units out would save nothing, is torch's own of a masked input.

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

    Example::

        vocabulary = MaskedLinear(650, 10_000, dropout=0.5)
        logits = vocabulary(torch.randn(35, 20, 650))  # [T, B, 650] -> [T, B, 10_000]
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

    @leaf
    def forward(  # type: ignore[override]
        self, input: Tensor | PackedSequence, keep: Keep | None = None
    ) -> Tensor | PackedSequence:
        """Project; ``keep`` replaces the module's own draw in training (the input stays raw)."""
        pattern, weight, bias = self.dropout, self.weight, self.bias
        if isinstance(input, PackedSequence):
            keep = sorted_as(input, keep)
        drops = self.training and (keep is not None or pattern.active)

        def project(x: Tensor, batch_sizes: Tensor | None, T: int, B: int) -> Tensor:
            if not drops:
                return F.linear(x, weight, bias)
            D = x.shape[-1]
            p = pattern.p if keep is None else 0.5
            leaves_out = ops.leaves_out(x, x.numel() * weight.shape[0], p)
            if not leaves_out and keep is None and pattern.shared:
                leaves_out = _gathers(pattern, (x, weight, bias), T, B, batch_sizes)
            if not leaves_out:
                check_weight(weight, D)
                check_keep(keep, T, B, D)
            kept = self._draw(pattern, T, B, D, dense=not leaves_out) if keep is None else keep
            return _project((x, weight, bias), kept, leaves_out, batch_sizes)

        if not drops and not isinstance(input, PackedSequence):
            return F.linear(input, weight, bias)
        return time_first(input, self.batch_first, project)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"


def _gathers(
    pattern: DropoutPattern, operands: Operands, T: int, B: int, batch_sizes: Tensor | None
) -> bool:
    """Return whether a product is made of what all steps keep."""
    x, weight, _ = operands
    run = partial(_project, batch_sizes=batch_sizes)
    return ops.gathers(
        x, weight, lambda: ops.Shared("linear", pattern, T, B, weight.shape, operands, run)
    )


def _project(
    operands: Operands, keep: Keep | None, leaves_out: bool, batch_sizes: Tensor | None
) -> Tensor:
    x, weight, bias = operands
    if leaves_out:
        return ops.masked_linear(x, keep, weight, bias, batch_sizes=batch_sizes)
    return F.linear(x if keep is None else keep.apply(x, batch_sizes), weight, bias)
