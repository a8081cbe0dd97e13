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

import argparse
import os
import sys
from pathlib import Path

SIZES = {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}  # sentence pairs
LANGUAGES = ("de", "en")


class SourceError(ValueError):
    """SOURCE cannot be used; the text says why and what to do."""


def read(source: Path) -> dict[str, list[str]]:
    """The sentences of each file, by the name it is written under; white space made single blanks.

    Raises:
        SourceError: with all that is wrong with `source`, one line each.
    """
    found: dict[str, list[str]] = {}
    faults = []
    for split, size in SIZES.items():
        for language in LANGUAGES:
            path = source / f"{split}.lc.norm.tok.{language}"
            try:
                # As `wc -l` counts, not `splitlines`, which also ends lines at odd characters.
                lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
            except FileNotFoundError:
                faults.append(f"{path} is not there")
                continue
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{path} cannot be read as UTF-8 text: {error}")
                continue
            sentences = [" ".join(line.split()) for line in lines]
            empty = [number for number, line in enumerate(sentences, start=1) if not line]
            if len(sentences) != size:
                faults.append(f"{path} has {len(sentences):,} lines, not {size:,}")
            elif empty:
                faults.append(f"{path} has an empty line, number {empty[0]:,}")
            found[f"{split}.{language}"] = sentences
    if faults:
        raise SourceError(
            "\n".join([*faults, "--help says which files are needed, and from where"])
        )
    return found


def write_lines(path: Path, lines: list[str]) -> None:
    """Write `lines` to `path`, all or nothing."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with the six files")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/multi30k"),
        help="folder to write to (default: %(default)s, where multi30k.yaml looks)",
    )
    args = parser.parse_args(argv)
    try:
        files = read(args.source)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, sentences in files.items():
            write_lines(args.out / name, sentences)
            print(f"{args.out / name}: {len(sentences):,} sentences")
    except (SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
