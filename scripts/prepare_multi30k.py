#!/usr/bin/env python3
"""Prepare Multi30k (task 1, German-English) for conf/onmt/multi30k.yaml.

    python scripts/prepare_multi30k.py SOURCE

SOURCE is a folder with these six files, lower-cased, normalised and tokenised as the data set's
makers give them (https://github.com/multi30k/dataset, folder data/task1/tok):

    train.lc.norm.tok.{de,en}               29,000 sentences each
    val.lc.norm.tok.{de,en}                  1,014
    test_2016_flickr.lc.norm.tok.{de,en}     1,000

To get them:

    git clone --depth 1 https://github.com/multi30k/dataset multi30k
    python scripts/prepare_multi30k.py multi30k/data/task1/tok

The data set is for research and education; see there for its terms. Everything is checked first,
then {train,val,test_2016_flickr}.{de,en} are written.
"""

from __future__ import annotations

import sys

import bitext

MULTI30K = bitext.Bitext(
    languages=("de", "en"),
    sizes={"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000},
    pattern="{split}.lc.norm.tok.{language}",
)


def main(argv: list[str] | None = None) -> int:
    return bitext.main(MULTI30K, description=__doc__, out="data/multi30k", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
