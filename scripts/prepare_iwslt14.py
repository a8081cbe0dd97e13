#!/usr/bin/env python3
"""Prepare IWSLT'14 German-English for conf/onmt/iwslt14_de_en.yaml.

    python scripts/prepare_iwslt14.py SOURCE

SOURCE is the folder that fairseq's prepare-iwslt14.sh makes: lower-cased, tokenised, and cut into
10,000 joint BPE subwords (`wo@@ rd`):

    train.{de,en}    160,239 lines
    valid.{de,en}      7,283
    test.{de,en}       6,750

To get it (the script loads the text, Moses and subword-nmt by itself):

    git clone --depth 1 https://github.com/facebookresearch/fairseq
    (cd fairseq/examples/translation && bash prepare-iwslt14.sh)
    python scripts/prepare_iwslt14.py fairseq/examples/translation/iwslt14.tokenized.de-en

The sentences are those of TED talks, for research; see https://wit3.fbk.eu for the terms.
Everything is checked first, then {train,valid,test}.{de,en} are written. The folder's tmp/ holds
files of the same names and sizes without BPE: these are not the ones.
"""

from __future__ import annotations

import sys

import bitext

IWSLT14 = bitext.Bitext(
    languages=("de", "en"),
    sizes={"train": 160_239, "valid": 7_283, "test": 6_750},
    subwords=True,
)


def main(argv: list[str] | None = None) -> int:
    return bitext.main(IWSLT14, description=__doc__, out="data/iwslt14_de_en", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
