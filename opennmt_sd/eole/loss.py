"""Eole's loss, where the generator's input is dropped: parameters, their names and the statistics
stay stock's; only how the loss is computed is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eole.utils.loss import LossCompute
from torch import Tensor

from opennmt_sd.seq2seq.loss import can_take_over, generator_of_kept, projected_loss


class StructuredLossCompute(LossCompute):
    """Stock's loss of a softmax generator, computed without what is dropped and what is padding.

    One buffer of logits is held, where stock holds several. All that stock adds to this loss, it
    adds as ever. The entropy of attention is that of words; stock's counts padding too.
    """

    _alive: Tensor | None = None  # [B, T], where it was ours that was computed
    _correct = 0

    @classmethod
    def take_over(cls, loss: LossCompute) -> LossCompute:
        """Make a loss of stock's one of ours, where it is one that ours can compute."""
        if can_take_over(loss, LossCompute):
            loss.__class__ = cls
        return loss

    def _compute_ce_loss(self, output: Tensor, flat_tgt: Tensor) -> tuple[Tensor, Tensor | None]:
        target = flat_tgt.view(len(output), -1)  # [B, T]
        ours = projected_loss(self.generator, output, target, self.padding_idx, self.criterion)
        if ours is None:
            self._alive = None
            with generator_of_kept(self, output):
                return super()._compute_ce_loss(output.contiguous(), flat_tgt)  # which views it
        self._alive, self._correct = target != self.padding_idx, ours.correct
        return ours.loss, None

    def _compute_attention_entropy(self, attns: Mapping[str, Tensor]) -> float:
        if self._alive is not None and attns:
            attns = {name: weights[self._alive][None] for name, weights in attns.items()}
        return super()._compute_attention_entropy(attns)

    def _stats(self, *args: Any, **kwargs: Any) -> Any:
        stats = super()._stats(*args, **kwargs)
        if self._alive is not None:
            stats.n_correct = self._correct
        return stats
