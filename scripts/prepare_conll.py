#!/usr/bin/env python3
"""Check a CoNLL-2003 folder, and word vectors for it.

    python scripts/prepare_conll.py FOLDER [--glove FILE] [--subset OUT]

FOLDER holds the English data of the CoNLL-2003 shared task, as its scripts build them:

    eng.train   14,041 sentences   203,621 words   23,499 entities
    eng.testa    3,250              51,362           5,942
    eng.testb    3,453              46,435           5,648

To get them: the annotation is at https://www.clips.uantwerpen.be/conll2003/ner/, the text is the
Reuters Corpus (RCV1, https://trec.nist.gov/data/reuters/reuters.html), for research only, which
you need the right to use. This script downloads nothing: it checks the counts.

--glove names GloVe vectors of 100 numbers (glove.6B.100d.txt of glove.6B.zip,
https://nlp.stanford.edu/projects/glove/, PDDL 1.0; plain, .gz or .xz) and prints how many of the
words they cover. --subset writes those that FOLDER's words need into an .xz file, which reads in a
second. Then train with

    python scripts/train_tagger.py experiment=ma_hovy data.path=FOLDER data.glove=FILE
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import preparing

from opennmt_sd import atomic
from opennmt_sd.data.textfile import TextError
from opennmt_sd.tagger import conll, glove
from opennmt_sd.tagger.conll import Corpus
from opennmt_sd.tagger.schemes import entities

SIZES = {  # sentences, words, entities
    "eng.train": (14_041, 203_621, 23_499),
    "eng.testa": (3_250, 51_362, 5_942),
    "eng.testb": (3_453, 46_435, 5_648),
}
UNITS = ("sentences", "words", "entities")


def check(folder: Path) -> list[Corpus]:
    """Return the three files.

    Raises:
        TextError: with all that is wrong with them, one line each.
    """
    corpora, faults = [], []
    for name, expected in SIZES.items():
        try:
            corpus = conll.read(folder / name)
        except TextError as error:
            faults.append(str(error))
            continue
        corpora.append(corpus)
        count = sum(len(entities(sentence.tags)) for sentence in corpus.sentences)
        for unit, want, have in zip(UNITS, expected, (len(corpus.sentences), corpus.words, count)):
            if want != have:
                faults.append(f"{folder / name} has {have:,} {unit}, not {want:,}")
    if faults:
        raise TextError("\n".join([*faults, "--help says what is needed, and from where"]))
    return corpora


def subset(vectors: glove.Vectors, words: set[str], path: Path) -> int:
    """Write the vectors of these words, lower-cased or not, whole or not at all."""
    kept = {word: vector for word, vector in vectors.items() if word in words}
    with (
        atomic.writer(path) as packed,
        lzma.open(packed, "wt", encoding="utf-8", newline="\n") as file,
    ):
        for word, vector in kept.items():
            file.write(" ".join([word, *(f"{x:.6g}" for x in vector.tolist())]) + "\n")
    return len(kept)


def main(argv: list[str] | None = None) -> int:
    parser = preparing.parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where eng.* are")
    parser.add_argument("--glove", type=Path, metavar="FILE", help="word vectors")
    parser.add_argument("--subset", type=Path, metavar="OUT", help="an .xz file to write")
    args = parser.parse_args(argv)
    if args.subset and (not args.glove or args.subset.suffix != ".xz"):
        parser.error("--subset needs --glove, and a name that ends in .xz")

    def prepare() -> None:
        if args.subset:
            preparing.apart([args.subset], args.glove, *(args.folder / name for name in SIZES))
        corpora = check(args.folder)
        for corpus in corpora:
            print(f"{corpus.name}: {len(corpus.sentences):,} sentences, {corpus.words:,} words")
        if args.glove:
            vectors = glove.read(args.glove, 100)
            for corpus in corpora:
                words = [word for s in corpus.sentences for word in s.words]
                share = sum(word.lower() in vectors for word in words) / len(words)
                print(f"{args.glove} covers {share:.1%} of the words of {corpus.name}")
            if args.subset:
                known = {w for c in corpora for s in c.sentences for w in s.words}
                count = subset(vectors, known | {word.lower() for word in known}, args.subset)
                print(f"{args.subset}: {count:,} vectors")

    return preparing.run(prepare, TextError)


if __name__ == "__main__":
    sys.exit(main())
