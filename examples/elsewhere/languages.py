"""German or English? Sentences of the sample that ships, letter by letter, and an LSTM for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opennmt_sd.data import TATOEBA

LENGTH = 60  # letters; longer sentences are cut, shorter ones filled up with 0


class Sentences(Dataset[dict[str, Tensor]]):
    """Sentences of both languages in turn: ``input_ids [LENGTH]`` and ``labels``."""

    def __init__(self, split: str, limit: int | None = None) -> None:
        texts = [(TATOEBA / f"{split}.{side}").read_text(encoding="utf-8") for side in ("de", "en")]
        lines = [line for pair in zip(*(text.splitlines() for text in texts)) for line in pair]
        self.lines = lines[: limit or len(lines)]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        letters = list(self.lines[i].encode()[:LENGTH])
        ids = torch.tensor(letters + [0] * (LENGTH - len(letters)))
        return {"input_ids": ids, "labels": torch.tensor(i % 2)}


class Classifier(nn.Module):
    """Two LSTM layers over letters, as anybody would write them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 64, padding_idx=0)
        self.lstm = nn.LSTM(64, hidden, num_layers=2, dropout=0.5, batch_first=True)
        self.out = nn.Linear(hidden, 2)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the logits ``[B, 2]``, as a Hugging Face Trainer wants them."""
        y, _ = self.lstm(self.embedding(input_ids))
        logits = self.out(y.max(1).values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
