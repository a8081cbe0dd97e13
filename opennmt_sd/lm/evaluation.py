"""One pass over a text, and its scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from opennmt_sd.lm.batches import Batches, segments, streams
from opennmt_sd.lm.text import CHAR, UNITS, WORD


class Evaluation:
    """B streams side by side, then what fills no row, behind the last one.

    Args:
        text: int64 ``[N]``.
        batch_size: B. 1 is one pass in order; a few streams are faster and lose context at as many
            places.
        unroll: steps of a segment; it changes no score.
        level: of the text's vocabulary.
        name, setting: what the text and the batch size are called, for the error.

    Raises:
        CorpusError: the text is too short for its streams.
    """

    def __init__(
        self,
        text: Tensor,
        batch_size: int,
        unroll: int,
        *,
        level: str = WORD,
        name: str = "the text",
        setting: str = "batch_size",
    ) -> None:
        columns = streams(text, batch_size, name=name, setting=setting, unit=UNITS[level])
        self.level = level
        self.batches = Batches(columns, segments(len(columns), unroll))
        rest = text[columns.numel() - 1 :, None]  # [words left + 1, 1]
        self.rest = Batches(rest, segments(len(rest), unroll))

    @torch.no_grad()
    def run(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Score all but the first word of each stream; the model comes out in the mode it had.

        Returns:
            ``loss``, the mean NLL in nats; ``perplexity``, its exponential; of characters also
            ``bits_per_character``, the mean in bits.
        """
        training = model.training
        model.eval()
        try:
            nats, words = self._nats(model, device)
        finally:
            model.train(training)
        loss = nats / words
        scores = {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}
        if self.level == CHAR:
            scores["bits_per_character"] = loss / math.log(2)
        return scores

    def _nats(self, model: nn.Module, device: torch.device) -> tuple[float, int]:
        """Sum the NLL of all words that are scored, and count them."""
        nats, words, state = 0.0, 0, None
        for part in (self.batches, self.rest):
            if part is self.rest and state is not None:
                state = tuple(tuple(s[:, -1:].contiguous() for s in of) for of in state)
            for ids, targets in part:
                _, part_nats, state = model(ids.to(device), targets.to(device), state)
                nats, words = nats + float(part_nats), words + ids.numel()
        return nats, words
