#!/usr/bin/env python3
"""Check a Penn Treebank folder for the language model.

    python scripts/prepare_ptb.py FOLDER

FOLDER holds the Penn Treebank as T. Mikolov prepared it (lower case, 10,000 words, `<unk>`, `N`):

    ptb.train.txt    42,068 lines   887,521 words
    ptb.valid.txt     3,370          70,390
    ptb.test.txt      3,761          78,669

This script downloads nothing: the text belongs to the Linguistic Data Consortium (LDC99T42,
https://catalog.ldc.upenn.edu/LDC99T42), is for research only, and you need the right to use it.
With that right, take the files from Mikolov's rnnlm examples (simple-examples.tgz), folder
`simple-examples/data`, or from any copy of them: the counts are checked. Then train with

    python scripts/train_lm.py experiment=zaremba_medium data.path=FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import preparing

from opennmt_sd.lm.data import SPLITS, Corpus, CorpusError


def check(folder: Path) -> None:
    """Print what is there.

    Raises:
        CorpusError: it is not the Penn Treebank.
    """
    corpus = Corpus.ptb(folder)
    for split in SPLITS:
        words = len(getattr(corpus, split))
        print(f"{folder / f'ptb.{split}.txt'}: {words:,} words with <eos>")
    print(f"{len(corpus.vocabulary):,} different words. All as it should be.")


def main(argv: list[str] | None = None) -> int:
    parser = preparing.parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where ptb.*.txt are")
    args = parser.parse_args(argv)
    return preparing.run(lambda: check(args.folder), CorpusError)


if __name__ == "__main__":
    sys.exit(main())
