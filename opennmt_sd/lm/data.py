"""The corpus: three texts, the vocabulary of the first, and everything as ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opennmt_sd.data import SHAKESPEARE
from opennmt_sd.lm import ptb
from opennmt_sd.lm.places import (
    PTB_NAME,
    SPLITS,
    check_there,
    files_of,
    folder_of,
    in_folder,
    is_ptb,
)
from opennmt_sd.lm.ptb import PTB
from opennmt_sd.lm.text import (
    CorpusError,
    Ids,
    Known,
    Numbers,
    Reading,
    first_unknown,
    numbers,
    smallest,
)
from opennmt_sd.lm.vocabulary import EOS, UNK, Vocabulary

__all__ = ["PTB", "SPLITS", "Corpus", "CorpusError", "Text", "read"]


@dataclass(frozen=True, eq=False)
class Text:
    """A text as ids.

    Args:
        ids: int64 ``[N]``, with an ``<eos>`` behind every line.
        unknown: how many of its words were made ``<unk>``.
    """

    ids: Tensor
    unknown: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three texts as ids, each one long sequence with an ``<eos>`` behind every line.

    Args:
        vocabulary: the words, or characters, of the training text.
        train, valid, test: int64 ``[N]``; ``test`` may be None.
        unknown: how many words of each text were made ``<unk>`` (those that were ``<unk>`` in the
            file are not among them).
        paths: where each text lies.
    """

    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor | None
    unknown: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def load(
        cls, path: str | Path | None = None, reading: Reading | None = None, *, test: bool = True
    ) -> Corpus:
        """Read the corpus in a folder, whatever it is; the sample that ships where there is none.

        Args:
            path: a folder with any of ``ptb.{train,valid,test}.txt``, which is read as :meth:`ptb`;
                another one is read as :meth:`folder`.
            reading: how; default: words, UTF-8.
            test: whether a test text must be there. Default True.

        Raises:
            CorpusError: see the method that reads it.
        """
        return cls.read(files_of(path), reading, test=test)

    @classmethod
    def sample(cls, reading: Reading | None = None) -> Corpus:
        """Read the sample that ships: Shakespeare, lower-cased, rare words as ``<unk>``."""
        return cls.folder(SHAKESPEARE, reading)

    @classmethod
    def ptb(cls, path: str | Path, reading: Reading | None = None) -> Corpus:
        """Read the Penn Treebank from a folder with ``ptb.{train,valid,test}.txt``.

        Raises:
            CorpusError: a file is missing or cannot be read, or its counts are not those of PTB.
        """
        return cls.read(in_folder(folder_of(path), PTB_NAME), reading)

    @classmethod
    def folder(
        cls, path: str | Path, reading: Reading | None = None, *, test: bool = True
    ) -> Corpus:
        """Read any three texts: ``{train,valid,test}.txt`` in a folder.

        Raises:
            CorpusError: a file is missing or empty or cannot be read; or ``valid`` or ``test``
                holds a word that the training text does not, and there is no ``<unk>``.
        """
        return cls.read(in_folder(folder_of(path)), reading, test=test)

    @classmethod
    def files(
        cls,
        train: str | Path,
        valid: str | Path,
        test: str | Path | None = None,
        reading: Reading | None = None,
    ) -> Corpus:
        """Read any texts, each by its path; ``test`` may be left out. Raises as :meth:`folder`."""
        paths = files_of(train=train, valid=valid, test=test)
        return cls.read(paths, reading, test=test is not None)

    @classmethod
    def read(
        cls, paths: Mapping[str, Path], reading: Reading | None = None, *, test: bool = True
    ) -> Corpus:
        """Read the texts of a corpus.

        Args:
            paths: of each split, as :func:`opennmt_sd.lm.places.files_of` gives them.
            reading: how; default: words, UTF-8.
            test: whether a test text must be there. Default True.

        Raises:
            CorpusError: as :meth:`ptb` where they are called so, else as :meth:`folder`.
        """
        reading = reading or Reading()
        check_there(paths, test=test)
        paths = {split: path for split, path in paths.items() if path.exists()}
        if is_ptb(paths):
            ptb.check(paths, reading.encoding)
        table = Numbers()
        pieces = numbers(paths["train"], reading.level, reading.encoding, table)
        counts = _counts(pieces, table)
        vocabulary = _vocabulary(counts, reading, reading.min_count or 1)
        others = {split: path for split, path in paths.items() if split != "train"}
        if reading.min_count is None and vocabulary.unk is None and any(
            _lacks(path, vocabulary, reading.encoding) for path in others.values()
        ):  # fmt: skip
            vocabulary = _vocabulary(counts, reading, 2)
        train = _renumbered(pieces, table, vocabulary, counts)
        texts = {split: read(path, vocabulary, reading.encoding) for split, path in others.items()}
        return cls(
            vocabulary,
            train.ids,
            texts["valid"].ids,
            texts["test"].ids if "test" in texts else None,
            {"train": train.unknown, **{split: text.unknown for split, text in texts.items()}},
            paths,
        )

    @property
    def splits(self) -> dict[str, Tensor]:
        """The texts there are, by name."""
        found = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: text for split, text in found.items() if text is not None}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(text):,}" for split, text in self.splits.items())
        unknown = "".join(f", {n:,} unknown in {split}" for split, n in self.unknown.items() if n)
        return f"Corpus: {len(self.vocabulary):,} types; {self.vocabulary.unit}: {sizes}{unknown}"

    def described(self) -> list[str]:
        """Give a line for each text (see :func:`describe`), and one for the vocabulary."""
        lines = [
            describe(split, ids, self.vocabulary, self.paths.get(split))
            for split, ids in self.splits.items()
        ]
        return [*lines, f"{self.vocabulary}, with {EOS}" + _rule(self.unknown)]


def describe(split: str, ids: Tensor, vocabulary: Vocabulary, file: Path | None) -> str:
    """Tell where a text lies, how long it is and how much of it is ``<unk>``."""
    length = len(ids)
    text = f"{split}: {f'{file}, ' if file else ''}{length:,} {vocabulary.unit} with {EOS}"
    if vocabulary.unk is None:
        return text
    share = int((ids == vocabulary.unk).sum()) / length
    return f"{text}, {share:.2%} {UNK}"


def _rule(unknown: Mapping[str, int]) -> str:
    if not any(unknown.values()):
        return ""
    made = ", ".join(f"{n:,} of {split}" for split, n in unknown.items())
    return (
        f" and {UNK}, which stands for {made}: all of them count as one and the same, so "
        "perplexity compares only with others of this vocabulary"
    )


def read(path: Path, vocabulary: Vocabulary, encoding: str = "utf-8") -> Text:
    """Read a text in a vocabulary that there is; what it lacks becomes ``<unk>``.

    Raises:
        CorpusError: the file cannot be read; or it holds a word that the vocabulary lacks, and that
            has no ``<unk>``.
    """
    ids = _joined(numbers(path, vocabulary.level, encoding, Known(vocabulary.ids)))
    missing = ids < 0
    unknown = int(missing.sum())
    if unknown and (unk := vocabulary.unk) is not None:
        ids.masked_fill_(missing, unk)
    elif unknown:
        line, word = first_unknown(path, vocabulary.level, encoding, vocabulary.ids)
        units = vocabulary.unit
        raise CorpusError(
            f"{path}, line {line:,}: {word!r} is not among the {len(vocabulary):,} {units} of the "
            f"training text ({unknown:,} such {units} in the file). A model can only score what it "
            f"knows: data.min_count=2 in its training makes {UNK} of what is there once, and of "
            "all that is unknown later"
        )
    return Text(ids, unknown)


def _counts(pieces: Sequence[Ids], table: Numbers) -> dict[str, int]:
    """Count how often a text holds each word."""
    totals = np.zeros(len(table), np.int64)
    for piece in pieces:
        found = np.bincount(piece)
        totals[: len(found)] += found
    return {word: int(n) for word, n in zip(table, totals) if n}  # in the order of the numbers


def _vocabulary(counts: Mapping[str, int], reading: Reading, min_count: int) -> Vocabulary:
    return Vocabulary.of_counts(
        counts,
        level=reading.level,
        min_count=min_count,
        max_words=reading.max_words,
        unknown=min_count > 1,
    )


def _lacks(path: Path, vocabulary: Vocabulary, encoding: str) -> bool:
    """Tell whether a text holds a word that a vocabulary lacks."""
    found = numbers(path, vocabulary.level, encoding, Known(vocabulary.ids))
    return any((piece < 0).any() for piece in found)


def _renumbered(
    pieces: list[Ids], table: Numbers, vocabulary: Vocabulary, counts: Mapping[str, int]
) -> Text:
    """Turn the training text from the numbers in which it was read to the vocabulary's ids.

    Each piece is let go of when it is done: memory holds the text once, not twice.
    """
    known = vocabulary.ids
    unk = -1 if vocabulary.unk is None else vocabulary.unk  # -1: no word needs it
    ids: Ids = np.array([known.get(word, unk) for word in table], smallest(len(vocabulary)))
    unknown = sum(n for word, n in counts.items() if word not in known)
    for i, piece in enumerate(pieces):
        pieces[i] = ids[piece]
    return Text(_joined(pieces), unknown)


def _joined(pieces: list[Ids]) -> Tensor:
    """Join pieces to one int64 tensor."""
    joined = torch.empty(sum(map(len, pieces)), dtype=torch.int64, device="cpu")
    begin = 0
    for piece in pieces:
        joined[begin : begin + len(piece)] = torch.from_numpy(piece)
        begin += len(piece)
    return joined
