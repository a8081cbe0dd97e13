"""What the suites of translators train, whatever the toolkit: sizes and texts.

Words are random: what an update costs does not depend on them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache

LAYERS = 2
GATES = {"LSTM": 4, "GRU": 3}
SPECIALS = 4  # words of a vocabulary that stand in no text
SOURCE, TARGET = (20, 26), (20, 32)  # lengths; a target's with <s> and </s>
PHASES = ("encoder", "decoder", "generator+loss", "optimizer")


@dataclass(frozen=True)
class Case:
    """A translator: an encoder that reads both ways, a decoder with global attention.

    Args:
        name: of the rows.
        hidden: H of the encoder's both directions together, of the decoder, and the width of word
            vectors.
        vocabulary: words on either side, the four special ones included.
        p: rate at all places that follow ``dropout``.
        recurrent: RH besides, at the same rate.
        input_feed: the decoder reads its attended output of the step before.
        rnn: ``"LSTM"`` or ``"GRU"``.
        fixed: one set for all steps: Case IV.
        sentences, batches: sentences of a batch, and batches that take turns.
    """

    name: str
    hidden: int
    vocabulary: int
    p: float = 0.0
    recurrent: bool = False
    input_feed: bool = True
    rnn: str = "LSTM"
    sentences: int = 64
    batches: int = 4
    fixed: bool = False

    def ideals(self) -> dict[str, float]:
        """Dense products over what is left of them: of a phase, and of the whole ``step``. The
        forward and both backward products of a weight shrink alike, so the forward pass tells."""
        dense, kept = replace(self, p=0.0).products(), self.products()
        ideals = {phase: dense[phase] / kept[phase] for phase in dense}
        return {**ideals, "optimizer": 1.0, "step": sum(dense.values()) / sum(kept.values())}

    def products(self) -> dict[str, float]:
        """Multiplications of the forward passes over all batches, those of padding left out."""
        H, kept = self.hidden, 1 - self.p
        rh = kept if self.recurrent else 1.0
        # Of a target <s> is read, and </s> is not.
        lengths = [
            (len(source.split()), len(target.split()) + 1)
            for batch in texts(self)
            for source, target in batch
        ]
        source, target = (sum(side) for side in zip(*lengths))
        pairs = sum(s * t for s, t in lengths)
        # Of a layer of width H, for H inputs; half as many for half the width.
        gates = GATES[self.rnn] * H * H
        inputs = LAYERS + 1 if self.input_feed else LAYERS
        attention = 3 * H * H * target + 2 * H * pairs  # linear_in, linear_out; scores, context
        return {
            "encoder": source * LAYERS * gates * (kept + rh / 2),
            "decoder": target * gates * (inputs * kept + LAYERS * rh) + attention,
            "generator+loss": target * self.vocabulary * H * kept,
        }

    @property
    def words(self) -> float:
        """Target tokens of an update, as toolkits count them: with ``</s>``, without ``<s>``."""
        counts = (len(target.split()) + 1 for batch in texts(self) for _, target in batch)
        return sum(counts) / self.batches


def texts(case: Case) -> list[list[tuple[str, str]]]:
    """Give the sources and targets of each batch, of words w0, w1, ..."""
    return _texts(case.vocabulary, case.sentences, case.batches)


@cache
def _texts(size: int, sentences: int, count: int) -> list[list[tuple[str, str]]]:
    draw = random.Random(1)

    def text(lengths: tuple[int, int], ends: int = 0) -> str:
        length = draw.randint(*lengths) - ends
        return " ".join(f"w{draw.randrange(size - SPECIALS)}" for _ in range(length))

    return [[(text(SOURCE), text(TARGET, 2)) for _ in range(sentences)] for _ in range(count)]
