"""A translator that trains, whatever the toolkit: what is measured, and its truth."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.target import CPU, Target
from opennmt_sd.benchmark.translation import Case


class TranslatorWork:
    """A translator in training, with its batches.

    Args:
        case: what is trained.
        ours: with our dropout; else with the toolkit's.
        p: rate; RH's too, where the case has it.
        engine: runs the ops; ``"cpu"`` also where ours would leave the work to torch.
        weights: of another one, to start from.
        target: the device.
    """

    model: nn.Module
    trainer: Any  # the toolkit's
    batches: list[dict[str, Any]]

    def __init__(
        self, case: Case, *, ours: bool, p: float, engine: str = "auto",
        weights: TranslatorWork | None = None, target: Target = CPU,
    ) -> None:  # fmt: skip
        self.case, self.ours, self.p, self.engine, self.target = case, ours, p, engine, target
        self.build(weights)
        updates = list(self.trainer._accum_batches((batch, 0) for batch in self.batches))
        self.updates = itertools.cycle(updates)

    def build(self, weights: TranslatorWork | None) -> None:
        """Make the toolkit's model, trainer and batches; with the weights of another one."""
        raise NotImplementedError

    def moved(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return batches on the device, as a toolkit's training gets them."""
        return [
            {name: part.to(self.target.device) if isinstance(part, Tensor) else part
             for name, part in batch.items()}
            for batch in batches
        ]  # fmt: skip

    def results(self, seed: int | None, number: int = 0) -> list[Tensor]:
        """Return the loss and every gradient of one batch; in evaluation the loss, the decoder's
        output and the attention.

        Args:
            seed: of the draw; None: as the generator stands.
            number: of the batch.
        """
        batch, training = self.batches[number], self.model.training
        loss_of = self.trainer.train_loss if training else self.trainer.valid_loss
        if seed is not None:
            torch.manual_seed(seed)
        with ops.use(self.engine), torch.set_grad_enabled(training):
            output, attns, *_ = self.model(batch["src"], batch["tgt"], batch["srclen"])
            loss, *_ = loss_of(batch, output, attns)
            if not training:
                return [loss, output, attns["std"]]
            weights = [weight for _, weight in sorted(self.model.named_parameters())]
            return [loss.detach(), *torch.autograd.grad(loss, weights)]

    def truth(self, seed: int, p: float | None = None) -> list[Tensor]:
        """Give the results of the same weights in float64, where our ops are the naive engine's."""
        twin = type(self)(
            self.case, ours=self.ours, p=self.p if p is None else p, engine="naive", weights=self,
            target=self.target,
        )  # fmt: skip
        twin.model.double().train(self.model.training)
        return twin.results(seed)
