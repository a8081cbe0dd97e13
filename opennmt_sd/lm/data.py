"""The corpus: three texts, the vocabulary of the first, and everything as word ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from opennmt_sd.data import SHAKESPEARE
from opennmt_sd.lm.text import CorpusError, read_lines
from opennmt_sd.lm.vocabulary import EOS, UNK, Vocabulary

__all__ = ["PTB", "SPLITS", "Corpus", "CorpusError"]

SPLITS = ("train", "valid", "test")

# Lines and words (without <eos>) of the Penn Treebank as T. Mikolov prepared it.
PTB = {"train": (42_068, 887_521), "valid": (3_370, 70_390), "test": (3_761, 78_669)}
PTB_TYPES = 10_000  # with <eos>

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three texts as word ids, each one long sequence with an ``<eos>`` behind every line.

    Args:
        vocabulary: the words of the training text and ``<eos>``.
        train, valid, test: int64 ``[number of words]``.
        unknown: how many words of ``valid`` and ``test`` became ``<unk>``.
    """

    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor
    unknown: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Corpus:
        """The corpus in a folder, whatever it is; the sample that ships where there is none.

        A folder with any of ``ptb.{train,valid,test}.txt`` is read as :meth:`ptb`, another one as
        :meth:`folder`.

        Raises:
            CorpusError: see the method that reads it.
        """
        if path is None:
            return cls.sample()
        is_ptb = any(file.is_file() for file in _files(Path(path), "ptb.{}.txt").values())
        return cls.ptb(path) if is_ptb else cls.folder(path)

    @classmethod
    def sample(cls) -> Corpus:
        """The sample that ships: Shakespeare, lower-cased, rare words as ``<unk>``."""
        return cls.folder(SHAKESPEARE)

    @classmethod
    def ptb(cls, path: str | Path) -> Corpus:
        """The Penn Treebank from a folder with ``ptb.{train,valid,test}.txt``.

        Raises:
            CorpusError: a file is missing or cannot be read, or its counts are not those of PTB.
        """
        return cls._read(_files(_folder(path), "ptb.{}.txt"), PTB)

    @classmethod
    def folder(cls, path: str | Path) -> Corpus:
        """Any three texts: ``{train,valid,test}.txt`` in a folder.

        Raises:
            CorpusError: a file is missing, empty, of one line or not UTF-8; or ``valid`` or
                ``test`` holds a word that the training text does not, and that has no ``<unk>``.
        """
        return cls._read(_files(_folder(path), "{}.txt"))

    @classmethod
    def files(cls, train: str | Path, valid: str | Path, test: str | Path) -> Corpus:
        """Any three texts, each by its path. Raises as :meth:`folder`."""
        return cls._read(dict(zip(SPLITS, map(Path, (train, valid, test)))))

    @classmethod
    def _read(
        cls, files: Mapping[str, Path], counts: Mapping[str, tuple[int, int]] | None = None
    ) -> Corpus:
        missing = [str(path) for path in files.values() if not path.exists()]
        if missing:
            raise CorpusError(
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there: a corpus "
                "is three text files. Name a folder with train.txt, valid.txt and test.txt, or "
                "with PTB's ptb.train.txt, ptb.valid.txt and ptb.test.txt, or all three files"
            )
        lines = {split: read_lines(path) for split, path in files.items()}
        if counts is not None:
            check_ptb_counts(files, lines, counts)
        vocabulary = Vocabulary.of(
            word for line in lines["train"] for word in (*line, EOS)
        )  # of train alone: what only valid or test holds must not be known
        if counts is not None and len(vocabulary) != PTB_TYPES:
            raise CorpusError(
                f"{files['train']} has {len(vocabulary):,} different words with {EOS}, PTB has "
                f"{PTB_TYPES:,}. {PTB_REMEDY}"
            )
        texts, unknown = {}, {}
        for split, path in files.items():
            texts[split], n = _ids(lines[split], vocabulary, path)
            if split != "train":
                unknown[split] = n
        if any(unknown.values()):
            logger.info("unknown words that became %s: %s", UNK, unknown)
        return cls(vocabulary, **texts, unknown=unknown)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in SPLITS)
        unknown = "".join(f", {n:,} unknown in {split}" for split, n in self.unknown.items() if n)
        return f"Corpus: {len(self.vocabulary):,} types; words: {sizes}{unknown}"


PTB_REMEDY = (
    "`python scripts/prepare_ptb.py --help` says how to get PTB. A text of your own belongs into "
    "train.txt, valid.txt and test.txt (without `ptb.`), which may have any size"
)


def check_ptb_counts(
    files: Mapping[str, Path],
    lines: Mapping[str, list[list[str]]],
    counts: Mapping[str, tuple[int, int]] = PTB,
) -> None:
    """Refuse files that are named as PTB's and are not PTB.

    Raises:
        CorpusError: with all that differs, found and expected.
    """
    faults = []
    for split, (want_lines, want_words) in counts.items():
        n_lines, n_words = len(lines[split]), sum(map(len, lines[split]))
        if (n_lines, n_words) != (want_lines, want_words):
            faults.append(
                f"{files[split]} has {n_lines:,} lines and {n_words:,} words, PTB's has "
                f"{want_lines:,} and {want_words:,}"
            )
    if faults:
        raise CorpusError("\n".join([*faults, PTB_REMEDY]))


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.exists():
        raise CorpusError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file: name the folder that holds the three texts")
    return folder


def _files(folder: Path, name: str) -> dict[str, Path]:
    return {split: folder / name.format(split) for split in SPLITS}


def _ids(lines: list[list[str]], vocabulary: Vocabulary, path: Path) -> tuple[Tensor, int]:
    """The ids of a text, and how many of its words are unknown."""
    known, unk = vocabulary.ids, vocabulary.unk
    ids = [known.get(word, -1) for line in lines for word in (*line, EOS)]
    text = torch.tensor(ids, dtype=torch.int64)
    unknown = text < 0
    n = int(unknown.sum())
    if not n:
        return text, 0
    if unk is None:
        where, word = next(
            (number, word)
            for number, line in enumerate(lines, start=1)
            for word in line
            if word not in known
        )
        raise CorpusError(
            f"{path}, line {where:,}: {word!r} is not among the {len(known):,} words of the "
            f"training text ({n:,} such words in the file). A model can only score words that it "
            f"knows: write {UNK} for the rare words of the training text, and what is unknown "
            f"later becomes {UNK} by itself"
        )
    return text.masked_fill_(unknown, unk), n
