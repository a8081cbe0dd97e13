#!/usr/bin/env python3
"""Make the German-English sample that ships in opennmt_sd/data/tatoeba-de-en.

    python scripts/prepare_tatoeba_sample.py deu.txt.xz opennmt_sd/data/tatoeba-de-en

SOURCE is the German-English file of https://www.manythings.org/anki/ (deu-eng.zip, `deu.txt`):
one pair a line, English TAB German, further columns ignored; UTF-8 text, or the same compressed
as .xz. OUT gets train, valid and test, each as .de and .en. The same SOURCE gives the same bytes
on every machine.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import preparing
from preparing import SourceError, write_lines

SIZES = {"test": 500, "valid": 500, "train": 20_000}  # pairs; cut in this order
MIN_WORDS, MAX_WORDS = 4, 12  # a side; shorter ones are phrases, longer ones cost time
MAX_RATIO = 2.0  # longer side over shorter side, in words
MIN_COUNT = 20  # each word occurs at least so often in SOURCE, or 20,000 pairs could not teach it

Pair = tuple[str, str]  # German, English

# Plain letters, digits and punctuation: what is outside is rare, and mostly a slip of the typist.
CLEAN = re.compile(r"[A-Za-zÄÖÜäöüß0-9 .,?!'\"%$:;-]+")
WORD = re.compile(r"\w+")


def read_pairs(source: Path) -> list[Pair]:
    """Return the distinct pairs of SOURCE in its order, NFC, every run of white space one blank."""
    opened = lzma.open if source.suffix == ".xz" else open
    pairs: dict[Pair, None] = {}
    try:
        with opened(source, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.rstrip("\n").split("\t")
                if len(columns) < 2:
                    raise SourceError(
                        f"{source}, line {number}: expected English TAB German, got "
                        f"{line.rstrip()!r}. Take deu.txt out of deu-eng.zip from "
                        "https://www.manythings.org/anki/"
                    )
                english, german = (
                    " ".join(unicodedata.normalize("NFC", c).split()) for c in columns[:2]
                )
                pairs[german, english] = None
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise SourceError(f"{source} cannot be read as UTF-8 text or .xz: {error}") from error
    return list(pairs)


def key(sentence: str) -> str:
    """Return what counts as the same sentence: its words, without case and punctuation."""
    return " ".join(WORD.findall(sentence.casefold()))


def groups(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Return the connected groups: pairs that share a German or an English sentence."""
    parent: dict[Pair, Pair] = {}

    def root(node: Pair) -> Pair:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    pairs = list(pairs)
    for german, english in pairs:
        parent[root(("de", key(german)))] = root(("en", key(english)))
    found: dict[Pair, list[Pair]] = {}
    for german, english in pairs:
        found.setdefault(root(("en", key(english))), []).append((german, english))
    return list(found.values())


def wanted(pairs: Iterable[Pair]) -> set[Pair]:
    """Return the pairs fit to learn from: clean characters, sane lengths, no rare word."""
    clean = [pair for pair in pairs if all(CLEAN.fullmatch(side) for side in pair)]
    counts = [Counter(word for side in sides for word in WORD.findall(side))
              for sides in zip(*clean, strict=True)]  # fmt: skip

    def fits(pair: Pair) -> bool:
        short, long = sorted(len(side.split()) for side in pair)
        return (
            short >= MIN_WORDS
            and long <= MAX_WORDS
            and long <= MAX_RATIO * short
            and all(
                count[word] >= MIN_COUNT
                for side, count in zip(pair, counts, strict=True)
                for word in WORD.findall(side)
            )
        )

    return {pair for pair in clean if fits(pair)}


def by_digest(pair: Pair) -> str:
    """Return a sort key that shuffles alike on every machine and Python version."""
    return hashlib.sha256("\t".join(pair).encode("utf-8")).hexdigest()


def sample(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """At most one pair of each connected group, shuffled, cut into test, valid and train.

    So no sentence, German or English, occurs twice in the sample, and none on two sides of the
    split. The groups are those of all pairs: two sentences can be linked by a third that is left
    out.
    """
    fit = wanted(pairs)
    kept = [[pair for pair in group if pair in fit] for group in groups(pairs)]
    chosen = sorted((min(group, key=by_digest) for group in kept if group), key=by_digest)
    if len(chosen) < sum(SIZES.values()):
        raise SourceError(
            f"{len(chosen):,} of the {len(pairs):,} pairs are fit for the sample, which needs "
            f"{sum(SIZES.values()):,}; SOURCE must be the whole German-English file"
        )
    cut, start = {}, 0
    for name, size in SIZES.items():
        cut[name] = chosen[start : start + size]
        start += size
    return cut


def main(argv: list[str] | None = None) -> int:
    parser = preparing.parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="deu.txt or deu.txt.xz")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    args = parser.parse_args(argv)

    def prepare() -> None:
        outputs = (args.out / f"{name}.{side}" for name in SIZES for side in ("de", "en"))
        preparing.apart(outputs, args.source)
        cut = sample(read_pairs(args.source))
        args.out.mkdir(parents=True, exist_ok=True)
        for name, pairs in cut.items():
            for language, lines in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
                path = args.out / f"{name}.{language}"
                write_lines(path, lines)
                print(f"{path}: {len(lines):,} sentences")

    return preparing.run(prepare)


if __name__ == "__main__":
    sys.exit(main())
