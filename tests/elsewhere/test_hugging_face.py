"""An LSTM classifier in a Hugging Face Trainer, converted: trained, and saved as ever."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from opennmt_sd import convert, revert

pytest.importorskip(
    "transformers", reason="transformers is not installed; scripts/check_elsewhere.sh tries it"
)
pytest.importorskip("accelerate", reason="accelerate is not installed; the Trainer needs it")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_trains_and_its_weights_are_anybodys(example: Any) -> None:
    recipe, languages = example("hugging_face_trainer"), example("languages")
    torch.manual_seed(1)
    model = convert(languages.Classifier(64), recurrent_dropout=0.3)
    sentences = languages.Sentences("train", 128)
    losses = [recipe.epoch(model, sentences) for _ in range(6)]
    assert math.isfinite(losses[-1])
    assert losses[-1] < losses[0]

    plain = languages.Classifier(64)
    plain.load_state_dict(model.state_dict())
    batch = {key: torch.stack([sentences[i][key] for i in range(8)]) for key in sentences[0]}
    with torch.no_grad():
        want = plain.eval()(**batch)["logits"]
        assert torch.equal(model.eval()(**batch)["logits"], want)
        assert torch.equal(revert(model)(**batch)["logits"], want)
