"""The Penn Treebank as T. Mikolov prepared it: its counts, and that files called so are it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from opennmt_sd.lm.text import EOS, WORD, CorpusError, Numbers, numbers

TYPES = 10_000  # with <eos>


class Counts(NamedTuple):
    """Lines and words (without ``<eos>``) of a text."""

    lines: int
    words: int


PTB = {
    "train": Counts(42_068, 887_521),
    "valid": Counts(3_370, 70_390),
    "test": Counts(3_761, 78_669),
}
REMEDY = (
    "`python scripts/prepare_ptb.py --help` says how to get PTB. A text of your own belongs into "
    "train.txt, valid.txt and test.txt (without `ptb.`), which may have any size"
)


def check(files: Mapping[str, Path], encoding: str = "utf-8") -> None:
    """Refuse files that are called as PTB's and are not PTB.

    Raises:
        CorpusError: with all that differs, found and expected; or a file cannot be read.
    """
    faults, types = [], 0
    for split, path in files.items():
        found, different = _count(path, encoding)
        if split == "train":
            types = different
        if found != PTB[split]:
            faults.append(
                f"{path} has {found.lines:,} lines and {found.words:,} words, PTB's has "
                f"{PTB[split].lines:,} and {PTB[split].words:,}"
            )
    if not faults and types != TYPES:
        raise CorpusError(
            f"{files['train']} has {types:,} different words with {EOS}, PTB has {TYPES:,}. "
            f"{REMEDY}"
        )
    if faults:
        raise CorpusError("\n".join([*faults, REMEDY]))


def _count(path: Path, encoding: str) -> tuple[Counts, int]:
    """Count a text; and its different words, with ``<eos>``."""
    table = Numbers()
    found = numbers(path, WORD, encoding, table)
    lines = sum(int((piece == table[EOS]).sum()) for piece in found)
    return Counts(lines, sum(map(len, found)) - lines), len(table) - 1
