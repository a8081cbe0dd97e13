"""Words, or characters, and their numbers."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from opennmt_sd.lm.text import CHAR, EOS, UNITS, UNK, WORD, check_level

__all__ = ["EOS", "UNK", "Vocabulary"]


class Vocabulary:
    """Words in order; a word's place is its id.

    Args:
        words: every word once.
        level: ``"word"`` (default), or ``"char"``: every word but ``<eos>`` and ``<unk>`` is a
            character.

    Raises:
        ValueError: a word occurs twice, or ``<eos>`` is missing; an unknown level.
    """

    def __init__(self, words: Sequence[str], level: str = WORD) -> None:
        self.words = tuple(words)
        self.level = check_level(level)
        self.ids = {word: i for i, word in enumerate(self.words)}
        if len(self.ids) < len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"the vocabulary holds {twice!r} twice: every word needs one id")
        if EOS not in self.ids:
            raise ValueError(f"the vocabulary lacks {EOS}, which ends every line")

    @classmethod
    def of(cls, words: Iterable[str], level: str = WORD) -> Vocabulary:
        """Make one of all words of a text; see :meth:`of_counts`."""
        return cls.of_counts(Counter(words), level=level)

    @classmethod
    def of_counts(
        cls,
        counts: Mapping[str, int],
        *,
        level: str = WORD,
        min_count: int = 1,
        max_words: int | None = None,
        unknown: bool = False,
    ) -> Vocabulary:
        """Make one of a text: the most frequent word first, equal ones in code point order.

        Args:
            counts: how often the text holds each word.
            min_count: words that it holds less often are left out. Default 1: none.
            max_words: the size at most; the rarest words are left out. Default None: any.
            unknown: take ``<unk>`` in, whether or not words are left out. Default False.

        What is left out is counted for ``<unk>``, which is taken in then; ``<eos>`` and an
        ``<unk>`` of the text are never left out.
        """
        special = {word: counts[word] for word in (EOS, UNK) if word in counts}
        kept = {w: n for w, n in counts.items() if n >= min_count and w not in special}
        size = len(kept) + len(special)
        if unknown or size < len(counts) or (max_words is not None and size > max_words):
            special.setdefault(UNK, 0)
        if max_words is not None and len(kept) + len(special) > max_words:
            kept = dict(_ordered(kept)[: max(max_words - len(special), 0)])
        if UNK in special:
            special[UNK] += sum(counts.values()) - sum(kept.values()) - sum(special.values())
        return cls([word for word, _ in _ordered({**kept, **special})], level)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.ids

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vocabulary)
            and self.level == other.level
            and self.words == other.words
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.words, self.level))

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self):,} {self.unit}"

    @property
    def unit(self) -> str:
        """``"words"`` or ``"characters"``."""
        return UNITS[self.level]

    @property
    def eos(self) -> int:
        """The id of ``<eos>``."""
        return self.ids[EOS]

    @property
    def unk(self) -> int | None:
        """The id of ``<unk>``; None where there is none."""
        return self.ids.get(UNK)

    def split(self, line: str) -> list[str]:
        """Return the words of a line, or its characters."""
        return list(line) if self.level == CHAR else line.split()

    def text(self, ids: Iterable[int]) -> str:
        """Return what ids say: words between blanks or characters, ``<eos>`` as a line's end."""
        lines: list[list[str]] = [[]]
        for i in ids:
            if i == self.eos:
                lines.append([])
            else:
                lines[-1].append(self.words[i])
        between = "" if self.level == CHAR else " "
        return "\n".join(between.join(line) for line in lines)

    def nearest(self, word: str) -> list[str]:
        """Return words spelt alike, the nearest first, at most three; of characters none."""
        return [] if self.level == CHAR else difflib.get_close_matches(word, self.words, n=3)


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Put the most frequent word first, equally frequent ones in code point order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
