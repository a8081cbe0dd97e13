"""From encoded sentences to tags."""

from __future__ import annotations

from opennmt_sd.tagger.batches import Encoded, in_order
from opennmt_sd.tagger.model import Tagger
from opennmt_sd.tagger.vocabulary import Vocabulary


def decode(
    model: Tagger, vocabulary: Vocabulary, encoded: Encoded, batch_size: int
) -> list[list[str]]:
    """Return the best tags of every sentence, in batches of like length; the mode is kept."""
    found: list[list[str]] = [[] for _ in encoded.lengths]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for batch in in_order(encoded, batch_size):
            rows = iter(model.decode(batch.to(device)).tolist())
            for size in batch.sizes.tolist():
                for number in batch.order[:size]:
                    found[number].append(vocabulary.tags[next(rows)])
    finally:
        model.train(training)
    return found
