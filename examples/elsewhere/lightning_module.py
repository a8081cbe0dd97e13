"""A plain Lightning module: converted where it is made, and then trained by Lightning as ever.

python lightning_module.py
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from compare import compare, options
from languages import Classifier, Sentences
from torch import Tensor
from torch.utils.data import DataLoader

from opennmt_sd import convert


class Module(lightning.LightningModule):
    """A classifier and what Lightning asks for."""

    def __init__(self, hidden: int = 512) -> None:
        super().__init__()
        self.model = Classifier(hidden)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss: Tensor = self.model(**batch)["loss"]
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def epoch(module: Module, batches: DataLoader[Any]) -> float:
    """Train for an epoch; return the mean loss."""
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, batches)
    return float(trainer.callback_metrics["loss_epoch"])


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(arguments.threads)
    lightning.seed_everything(1, verbose=False)
    sentences = Sentences("train", arguments.limit or 4000)
    batches = DataLoader(sentences, batch_size=64, shuffle=True)
    as_it_is, converted = Module(arguments.hidden or 512), Module(arguments.hidden or 512)
    converted.load_state_dict(as_it_is.state_dict())
    convert(converted, recurrent_dropout=0.5)  # the line that is ours
    compare(lambda: epoch(as_it_is, batches), lambda: epoch(converted, batches), arguments.rounds)


if __name__ == "__main__":
    main()
