"""OpenNMT-py's loss, where the generator's input is dropped: parameters, their names and the
statistics stay stock's; only how the loss is computed is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onmt.utils import Statistics
from onmt.utils.loss import LossCompute
from torch import Tensor

from opennmt_sd.seq2seq.loss import can_take_over, generator_of_kept, projected_loss


class StructuredLossCompute(LossCompute):
    """Stock's loss of a softmax generator, computed without what is dropped and what is padding.

    One buffer of logits is held, where stock holds three.
    """

    @classmethod
    def take_over(cls, loss: LossCompute) -> LossCompute:
        """Make a loss of stock's one of ours, where it is one that ours can compute."""
        if can_take_over(loss, LossCompute):
            loss.__class__ = cls
        return loss

    def forward(
        self,
        batch: Mapping[str, Any],
        output: Tensor,
        attns: Mapping[str, Tensor],
        trunc_start: int = 0,
        trunc_size: int | None = None,
    ) -> tuple[Tensor, Statistics]:
        target = batch["tgt"][:, self.tgt_shift_index :, 0]  # [B, T]
        ours = None
        if not self.lambda_align:
            ours = projected_loss(self.generator, output, target, self.padding_idx, self.criterion)
        if ours is None:
            with generator_of_kept(self, output):
                return super().forward(batch, output, attns, trunc_start, trunc_size)
        loss = ours.loss
        if self.lambda_coverage:
            # As stock has it, on every device: its rows are in another order than attention's.
            flat = target.reshape(-1)
            loss = loss + self._compute_coverage_loss(attns["std"], attns["coverage"], flat)
        return loss, Statistics(
            loss=loss.item(),
            n_batchs=1,
            n_sents=len(batch["srclen"]),
            n_words=ours.words,
            n_correct=ours.correct,
        )
