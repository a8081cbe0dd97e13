"""Words and their numbers."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

EOS = "<eos>"  # ends every line
UNK = "<unk>"  # stands for what the vocabulary lacks


class Vocabulary:
    """Words in order; a word's place is its id.

    Args:
        words: every word once.

    Raises:
        ValueError: a word occurs twice, or ``<eos>`` is missing.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        if len(self.ids) < len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"the vocabulary holds {twice!r} twice: every word needs one id")
        if EOS not in self.ids:
            raise ValueError(f"the vocabulary lacks {EOS}, which ends every line")

    @classmethod
    def of(cls, words: Iterable[str]) -> Vocabulary:
        """Of a text: the most frequent word first, equally frequent ones in code point order."""
        counts = Counter(words)
        return cls(sorted(counts, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self):,} words"

    @property
    def eos(self) -> int:
        return self.ids[EOS]

    @property
    def unk(self) -> int | None:
        """The id of ``<unk>``; None where the training text has none."""
        return self.ids.get(UNK)

    def nearest(self, word: str) -> list[str]:
        """Words spelt alike, the nearest first, at most three."""
        return difflib.get_close_matches(word, self.words, n=3)
