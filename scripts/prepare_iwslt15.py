#!/usr/bin/env python3
"""Prepare IWSLT'15 English-Vietnamese for conf/onmt/iwslt15_en_vi.yaml and ..._small.yaml.

    python scripts/prepare_iwslt15.py SOURCE

SOURCE is a folder with these six files, tokenised as Stanford's NMT group released them
(https://nlp.stanford.edu/projects/nmt/), plain or .xz:

    train.{en,vi}      133,317 lines, of which 133,166 have a text on both sides
    tst2012.{en,vi}      1,553 lines: for validation
    tst2013.{en,vi}      1,268 lines: the test

To get them:

    mkdir iwslt15
    for name in train tst2012 tst2013; do for language in en vi; do
        wget -P iwslt15 https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi/$name.$language
    done; done
    python scripts/prepare_iwslt15.py iwslt15

The sentences are those of TED talks, CC BY-NC-ND 3.0; see there for the terms. Everything is
checked first, then {train,tst2012,tst2013}.{en,vi} are written. The 151 training pairs with an
empty side are left out; a copy that lacks them already is as good.
"""

from __future__ import annotations

import sys

import bitext

IWSLT15 = bitext.Bitext(
    languages=("en", "vi"),
    sizes={"train": 133_166, "tst2012": 1_553, "tst2013": 1_268},
    drop_empty=("train",),
)


def main(argv: list[str] | None = None) -> int:
    return bitext.main(IWSLT15, description=__doc__, out="data/iwslt15_en_vi", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
