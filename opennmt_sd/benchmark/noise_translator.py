"""A translator that learns from Tatoeba, German to English, whose gradient is then asked for."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.benchmark.translation import Case
from opennmt_sd.benchmark.translator import Work, batch_of, vocabularies_of
from opennmt_sd.data import TATOEBA

RARE = 2  # a word that occurs less often is <unk>


@cache
def _pairs() -> list[tuple[str, str]]:
    """Return the training pairs, words apart, in the order of a training."""
    sides = ((TATOEBA / f"train.{side}").read_text(encoding="utf-8") for side in ("de", "en"))
    german, english = (
        [" ".join(re.findall(r"\w+|[^\w\s]", line.lower())) for line in text.splitlines()]
        for text in sides
    )
    pairs = list(zip(german, english))
    random.Random(1).shuffle(pairs)
    return pairs


@cache
def _vocabularies() -> dict[str, Any]:
    counts = (Counter(" ".join(texts).split()) for texts in zip(*_pairs()))
    return vocabularies_of(*([w for w, n in of.most_common() if n >= RARE] for of in counts))


class _Work(Work):
    """A translator whose texts are real, and where every sentence drops its own units."""

    further: Mapping[str, Any] = {"sd_space": "random"}

    def corpus(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        pairs, B = _pairs(), self.case.sentences
        starts = (i * B % (len(pairs) - B) for i in range(self.case.batches))
        return _vocabularies(), [batch_of(_vocabularies(), pairs[i : i + B]) for i in starts]


class TrainedTranslator:
    """2 layers, both ways and with input feed, dropout at every place that follows.

    Args:
        p: rate; every sentence drops its own units.
        B: sentences.
        width: of the words' vectors and the layers.
        updates: of Adam.
        batches: how many there are to ask for: those behind the last update.
    """

    def __init__(self, p: float, B: int, width: int, updates: int, batches: int) -> None:
        size = Case("translator", width, 0, p, sentences=B, batches=updates + batches)
        self.work = _Work(size, ours=True, p=p)
        self.batches, self._first = batches, updates
        for _ in range(updates):
            self.work.step()

    def gradient(self, batch: int) -> Tensor:
        """Return the gradient of a batch, ``[N]``, with a draw of its own."""
        _, *gradients = self.work.results(None, self._first + batch)
        return torch.cat([g.flatten() for g in gradients])
