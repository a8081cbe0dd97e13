"""Batches of sentences of like length, packed: no row of them is padding.

Axis names: B sentences, T words of the longest, R words of all, W distinct words, N their
characters. Rows are in packed order, as in a ``PackedSequence``: the first words of all sentences
(the longest sentence first), then the second words of those that have one, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opennmt_sd.tagger.vocabulary import UNKNOWN, Ids, Vocabulary

BUCKET = 100  # batches that are sorted by length together


class Batch(NamedTuple):
    """Sentences, packed.

    Attributes:
        words: int64 ``[R]``, numbers of words.
        sizes: int64 ``[T]`` on the CPU: how many sentences have a t-th word.
        spelling: int64 ``[R]``: which of the W distinct words each row is.
        chars: of the W distinct words, as the model's character encoder lays them out.
        tags: int64 ``[R]``, or none.
        order: of each column of the batch, its sentence's number.
    """

    words: Tensor
    sizes: Tensor
    spelling: Tensor
    chars: tuple[Tensor, ...]
    tags: Tensor | None
    order: list[int]

    @property
    def sentences(self) -> int:
        return len(self.order)

    def to(self, device: torch.device | str) -> Batch:
        """Return the same on another device; ``sizes`` stays on the CPU, where packing wants it."""
        if self.words.device == torch.device(device):
            return self
        return self._replace(
            words=self.words.to(device),
            spelling=self.spelling.to(device),
            chars=tuple(part.to(device) for part in self.chars),
            tags=None if self.tags is None else self.tags.to(device),
        )


Layout = Callable[[list[Ids]], tuple[Tensor, ...]]


class Encoded:
    """Sentences as numbers, from which batches are made.

    Args:
        vocabulary: gives the numbers.
        sentences: words; no sentence may be empty.
        layout: of the model's character encoder.
        tags: in the model's scheme; None where there are none.

    Raises:
        ValueError: an empty sentence. KeyError: a tag that training lacks.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        sentences: Sequence[Sequence[str]],
        layout: Layout,
        tags: Sequence[Sequence[str]] | None = None,
    ) -> None:
        empty = [number for number, words in enumerate(sentences) if not len(words)]
        if empty:
            raise ValueError(f"sentence {empty[0]} (from 0) has no word: leave it out")
        self.layout = layout
        self.lengths = [len(words) for words in sentences]
        self.words = [vocabulary.word_ids(words) for words in sentences]
        self.tags = None if tags is None else [vocabulary.tag_ids(row) for row in tags]
        numbers: dict[str, int] = {}
        self.spelling = [
            np.array([numbers.setdefault(word, len(numbers)) for word in words])
            for words in sentences
        ]
        self.chars = [vocabulary.char_ids(word) for word in numbers]
        self.rare = np.zeros(vocabulary.trained + len(vocabulary.unseen), dtype=bool)
        self.rare[vocabulary.rare] = True

    def batch(
        self, chosen: Sequence[int], unknown: tuple[float, np.random.Generator] | None = None
    ) -> Batch:
        """Return the batch of these sentences, in order of length.

        Args:
            unknown: a rate, and what to draw from: so often a rare word stands in for the
                unknown one. Default: never.
        """
        order = sorted(chosen, key=lambda n: -self.lengths[n])  # stable
        at = _Packing([self.lengths[n] for n in order])
        words = at.pack([self.words[n] for n in order])
        if unknown is not None and unknown[0] > 0:
            rate, generator = unknown
            words[self.rare[words] & (generator.random(len(words)) < rate)] = UNKNOWN
        distinct, spelling = np.unique(
            at.pack([self.spelling[n] for n in order]), return_inverse=True
        )
        return Batch(
            words=torch.from_numpy(words),
            sizes=torch.from_numpy(at.sizes),
            spelling=torch.from_numpy(spelling),
            chars=self.layout([self.chars[n] for n in distinct]),
            tags=None if self.tags is None else
                torch.from_numpy(at.pack([self.tags[n] for n in order])),
            order=order,
        )  # fmt: skip


class _Packing:
    """Where the words of sentences of falling lengths go."""

    def __init__(self, lengths: list[int]) -> None:
        steps = np.arange(lengths[0])[:, None]  # [T, 1]
        alive = steps < np.array(lengths)  # [T, B]
        self.sizes = alive.sum(1)
        begin = np.cumsum([0, *lengths[:-1]])  # of each sentence in their concatenation
        self.source = (begin + steps)[alive]  # [R]

    def pack(self, sentences: list[Ids]) -> Ids:
        return np.concatenate(sentences)[self.source]


def plan(
    lengths: Sequence[int], size: int, *, seed: int, epoch: int, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """Return which sentences make which batch of an epoch, for one rank.

    Shuffled; then sorted by length within buckets of :data:`BUCKET` batches and cut, so that a
    batch holds like lengths; then the batches are shuffled. All ranks get as many batches: where
    the number does not divide, some get one of the first ones again.

    Args:
        lengths: of all sentences.
        size: sentences a batch.
        seed, epoch: what the order depends on.
        rank, ranks: which share.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(lengths))
    span = size * BUCKET
    length = np.asarray(lengths)
    cut: list[npt.NDArray[np.int64]] = []
    for begin in range(0, len(shuffled), span):
        bucket = shuffled[begin : begin + span]
        bucket = bucket[np.argsort(length[bucket], kind="stable")]
        cut += [bucket[n : n + size] for n in range(0, len(bucket), size)]
    order = generator.permutation(len(cut)).tolist()
    each = -(-len(order) // ranks)
    return [cut[order[n % len(order)]].tolist() for n in range(rank, each * ranks, ranks)]


class EpochBatches(Sequence[Batch]):
    """The batches of one epoch, made when asked for: batch n is the same at any time."""

    def __init__(
        self, encoded: Encoded, plans: list[list[int]], seeds: Sequence[int], unknown: float
    ) -> None:
        self.encoded, self.plans, self.seeds, self.unknown = encoded, plans, seeds, unknown

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, n: int) -> Batch:  # type: ignore[override]  # no slices
        generator = np.random.default_rng([*self.seeds, range(len(self.plans))[n]])
        return self.encoded.batch(self.plans[n], (self.unknown, generator))


def in_order(encoded: Encoded, size: int, words: int = 8192) -> Iterator[Batch]:
    """Give every sentence once, longest first: for scores and predictions.

    Args:
        size: at most so many sentences a batch.
        words: and, if it is more than one sentence, at most so many words, which bounds memory.
    """
    order = sorted(range(len(encoded.lengths)), key=lambda n: -encoded.lengths[n])
    while order:
        n = max(1, min(size, words // encoded.lengths[order[0]]))
        yield encoded.batch(order[:n])
        order = order[n:]
