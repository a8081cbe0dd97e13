#!/usr/bin/env python3
"""Make the Shakespeare sample that ships in opennmt_sd/data/shakespeare.

    python scripts/prepare_shakespeare_sample.py shakespeare.txt opennmt_sd/data/shakespeare

SOURCE holds plays as speeches: the speaker and a colon, the lines, an empty line. A well-known file
of this form are the 40,000 lines at
https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt.
OUT gets train.txt, valid.txt and test.txt. The same SOURCE gives the same bytes on every machine.

- A line stays a line; empty ones go. Everything is lower-cased.
- Words and punctuation marks stand between blanks; common endings with an apostrophe are words
  of their own, as in the Penn Treebank: `we 'll`, `know 't`, `lov 'd`; not `o'er`.
- The text is cut into blocks of 50 speeches. Of 20 blocks, one is for validation, one for testing.
- A word that occurs fewer than 3 times in train.txt becomes <unk>, in all three.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import preparing
from preparing import SourceError, write_lines

BLOCK = 50  # speeches
CYCLE = {9: "valid", 19: "test"}  # of 20 blocks; the others train
MIN_COUNT = 3  # in train.txt
UNK = "<unk>"

ENDING = r"'(?:d|em|ll|m|re|rt|s|st|t|ve)\b"
TOKEN = re.compile(rf"{ENDING}|[a-z]+(?:(?!{ENDING})'[a-z]+)*|[0-9]+|--|[^\sa-z0-9]")

Line = list[str]


def speeches(source: Path) -> list[list[Line]]:
    """Return the speeches of SOURCE, each a list of tokenised lines."""
    try:
        text = source.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{source} cannot be read as UTF-8 text: {error}") from error
    found: list[list[Line]] = [[]]
    for line in text.lower().split("\n"):
        tokens = TOKEN.findall(line)
        if tokens:
            found[-1].append(tokens)
        elif found[-1]:
            found.append([])
    return [speech for speech in found if speech]


def split(found: list[list[Line]]) -> dict[str, list[Line]]:
    """Lines for training, validation and testing, from blocks in turn.

    Raises:
        SourceError: too few speeches to give each of them a block.
    """
    need = BLOCK * max(CYCLE) + 1
    if len(found) < need:
        raise SourceError(
            f"the source has {len(found):,} speeches (separated by empty lines), the sample needs "
            f"{need:,} at least; SOURCE must be the whole file"
        )
    parts: dict[str, list[Line]] = {"train": [], "valid": [], "test": []}
    for number, speech in enumerate(found):
        parts[CYCLE.get(number // BLOCK % 20, "train")] += speech
    counts = Counter(token for line in parts["train"] for token in line)
    return {
        name: [[t if counts[t] >= MIN_COUNT else UNK for t in line] for line in lines]
        for name, lines in parts.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = preparing.parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the plays, UTF-8")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    args = parser.parse_args(argv)

    def prepare() -> None:
        parts = split(speeches(args.source))
        preparing.apart((args.out / f"{name}.txt" for name in parts), args.source)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, lines in parts.items():
            path = args.out / f"{name}.txt"
            write_lines(path, [" ".join(line) for line in lines])
            print(f"{path}: {len(lines):,} lines, {sum(map(len, lines)):,} words")

    return preparing.run(prepare)


if __name__ == "__main__":
    sys.exit(main())
