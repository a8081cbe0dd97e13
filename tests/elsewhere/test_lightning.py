"""A plain Lightning module, converted: trained, saved, and loaded without us."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from opennmt_sd import StructuredLSTM, convert

lightning: Any = pytest.importorskip(
    "lightning", reason="lightning is not installed; scripts/check_elsewhere.sh tries it"
)
pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_trains_and_its_checkpoint_is_anybodys(example: Any, tmp_path: Any) -> None:
    recipe, languages = example("lightning_module"), example("languages")
    torch.manual_seed(1)
    module = convert(recipe.Module(hidden=64), recurrent_dropout=0.3)
    assert type(module.model.lstm) is StructuredLSTM
    sentences = languages.Sentences("train", 64)
    batches = DataLoader(sentences, batch_size=16)
    losses = [recipe.epoch(module, batches) for _ in range(6)]
    assert math.isfinite(losses[-1])
    assert losses[-1] < losses[0]

    trainer = lightning.Trainer(max_epochs=0, accelerator="cpu", logger=False,
                                enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, batches)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    plain = recipe.Module.load_from_checkpoint(tmp_path / "last.ckpt", hidden=64)
    assert type(plain.model.lstm) is torch.nn.LSTM
    batch = next(iter(batches))
    with torch.no_grad():
        ours, theirs = (m.eval().model(**batch)["logits"] for m in (module, plain))
    assert torch.equal(ours, theirs)
