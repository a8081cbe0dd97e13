"""What a tagger knows: words, characters and tags, each with its number.

All come from the training data alone. Words that have only a pretrained vector get one too, so
that a word unseen in training is not unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

UNKNOWN = 0  # a word's number where it has none
PAD, UNKNOWN_CHAR = 0, 1
FIRST_CHAR = 2
DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of words, characters and tags.

    Attributes:
        words: of training, normalised, most frequent first; number 1 is the first (0: unknown).
        unseen: further words, known from their pretrained vectors only; they follow.
        rare: numbers of the words that training holds once and that have no pretrained vector:
            standing in for the unknown word now and then, they train its vector.
        chars: of training; number 2 is the first (0: none, 1: unknown).
        tags: of training, in the model's scheme.
        scheme: the model's tag scheme.
        lower, digits: whether words lose their case, and their digits become 0.
    """

    words: list[str]
    unseen: list[str]
    rare: list[int]
    chars: list[str]
    tags: list[str]
    scheme: str
    lower: bool = True
    digits: bool = False

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        tags: Iterable[Sequence[str]],
        *,
        scheme: str,
        vectors: Iterable[str] = (),
        lower: bool = True,
        digits: bool = False,
    ) -> Vocabulary:
        """Build it from the training sentences, their tags, and the words that have a vector."""
        counts: Counter[str] = Counter()
        chars: Counter[str] = Counter()
        for sentence in sentences:
            for word in sentence:
                counts[normalise(word, lower, digits)] += 1
                chars.update(word)
        words = [word for word, _ in counts.most_common()]
        known = list(vectors)
        pretrained = set(known)
        return cls(
            words=words,
            unseen=[word for word in known if word not in counts],
            rare=[
                number
                for number, word in enumerate(words, start=1)
                if counts[word] == 1 and word not in pretrained
            ],
            chars=sorted(chars),
            tags=sorted({tag for sentence in tags for tag in sentence} | {"O"}),
            scheme=scheme,
            lower=lower,
            digits=digits,
        )

    @property
    def trained(self) -> int:
        """Count the word vectors that are trained: the unknown word's and those of ``words``."""
        return len(self.words) + 1

    @cached_property
    def _words(self) -> dict[str, int]:
        return {word: number for number, word in enumerate([*self.words, *self.unseen], start=1)}

    @cached_property
    def _chars(self) -> dict[str, int]:
        return {char: number for number, char in enumerate(self.chars, start=FIRST_CHAR)}

    @property
    def types(self) -> set[str]:
        """The types of the entities it can find."""
        return {tag.partition("-")[2] for tag in self.tags} - {""}

    @cached_property
    def _tags(self) -> dict[str, int]:
        return {tag: number for number, tag in enumerate(self.tags)}

    def word_ids(self, words: Iterable[str]) -> Ids:
        number = self._words
        return np.array(
            [number.get(normalise(word, self.lower, self.digits), UNKNOWN) for word in words],
            dtype=np.int64,
        )

    def char_ids(self, word: str) -> Ids:
        """Return the numbers of a word's characters, one at least."""
        number = self._chars
        ids = [number.get(char, UNKNOWN_CHAR) for char in word] or [UNKNOWN_CHAR]
        return np.array(ids, dtype=np.int64)

    def tag_ids(self, tags: Iterable[str]) -> Ids:
        """Return the numbers of tags.

        Raises:
            KeyError: a tag that training lacks.
        """
        return np.array([self._tags[tag] for tag in tags], dtype=np.int64)


def normalise(word: str, lower: bool, digits: bool) -> str:
    """Return the form under which a word's vector is looked up."""
    word = word.lower() if lower else word
    return DIGIT.sub("0", word) if digits else word
