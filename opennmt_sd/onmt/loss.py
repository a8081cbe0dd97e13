"""The generator and the loss as one: the generator's input is dropped, so its products shrink too.

Parameters, their names and the statistics stay stock's; only how the loss is computed is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onmt.utils import Statistics
from onmt.utils.loss import LossCompute
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.onmt.plain_linear import is_plain_linear


def mark_kept(output: Tensor, keep: Keep | None) -> None:
    """Note on a decoder's output ``[B, T, H]`` which units it keeps; it is scaled already."""
    output.kept = keep  # type: ignore[attr-defined]


class StructuredLossCompute(LossCompute):
    """Stock's loss of a softmax generator, computed without what is dropped and what is padding.

    One buffer of logits is held, where stock holds three.
    """

    @classmethod
    def take_over(cls, loss: LossCompute) -> LossCompute:
        """Make a loss of stock's one of ours, where it is one that ours can compute."""
        fits = (
            type(loss) is LossCompute
            and type(loss.criterion) is nn.CrossEntropyLoss
            and loss.lm_generator is None
            and loss.lm_prior_model is None
        )
        if fits:
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
        alive = (target != self.padding_idx).t()  # [T, B]
        sizes = alive.sum(1).cpu()  # rows that count, at each step
        grow = bool((sizes[1:] > sizes[:-1]).any())
        fits = alive.shape == output.shape[1::-1] and sizes.all() and not grow
        if not fits or self.lambda_align or not is_plain_linear(self.generator):
            return super().forward(batch, output, attns, trunc_start, trunc_size)

        kept = getattr(output, "kept", None)
        keep = kept.rescaled(1.0) if isinstance(kept, KeepSets) else None
        rows = output.transpose(0, 1)[alive]  # [R, H], time first
        targets = target.t()[alive]  # [R]
        loss, correct = ops.projected_nll(
            rows, keep, self.generator.weight, self.generator.bias, targets, batch_sizes=sizes,
            label_smoothing=self.criterion.label_smoothing,
        )  # fmt: skip
        if self.lambda_coverage:
            flat = target.reshape(-1)
            loss = loss + self._compute_coverage_loss(attns["std"], attns["coverage"], flat)
        return loss, Statistics(
            loss=loss.item(),
            n_batchs=1,
            n_sents=len(batch["srclen"]),
            n_words=len(targets),
            n_correct=int(correct),
        )
