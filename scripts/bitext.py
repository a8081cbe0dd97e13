"""Parallel text for a recipe of conf/onmt: checked first, then written where the recipe looks."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import preparing
from preparing import SourceError


@dataclass(frozen=True)
class Bitext:
    """What a folder of parallel text must hold.

    Args:
        languages: of the two sides, as they end the files' names.
        sizes: sentence pairs by split.
        pattern: how the source names a file; ``.xz`` may follow.
        drop_empty: splits whose pairs with an empty side are left out before they are counted.
            Elsewhere an empty line is a fault.
        subwords: whether BPE (``wo@@ rd``) must have been applied.
    """

    languages: tuple[str, str]
    sizes: Mapping[str, int]
    pattern: str = "{split}.{language}"
    drop_empty: tuple[str, ...] = ()
    subwords: bool = False

    def read(self, source: Path) -> dict[str, list[str]]:
        """Return the sentences of each file, by the name it is written under.

        Raises:
            SourceError: with all that is wrong with `source`, one line each.
        """
        found: dict[str, list[str]] = {}
        faults: list[str] = []
        for split, size in self.sizes.items():
            paths = [source / self.pattern.format(split=split, language=language)
                     for language in self.languages]  # fmt: skip
            sides = [self._side(path, split, faults) for path in paths]
            if any(side is None for side in sides):
                continue
            first, second = (side or [] for side in sides)
            if len(first) != len(second):
                faults.append(
                    f"{paths[0]} has {len(first):,} lines and {paths[1]} {len(second):,}: "
                    "line by line they must be translations of each other"
                )
                continue
            pairs = list(zip(first, second))
            if split in self.drop_empty:
                pairs = [pair for pair in pairs if all(pair)]
            if len(pairs) != size:
                faults.append(
                    f"{paths[0]} and {paths[1]} have {len(pairs):,} sentence pairs, not {size:,}"
                )
            for language, sentences in zip(self.languages, zip(*pairs)):
                found[f"{split}.{language}"] = list(sentences)
        if faults:
            raise SourceError(
                "\n".join([*faults, "--help says which files are needed, and from where"])
            )
        return found

    def _side(self, path: Path, split: str, faults: list[str]) -> list[str] | None:
        """Return a file's sentences, None if it cannot be read; add what is wrong to `faults`."""
        try:
            text = _text(path)
        except FileNotFoundError:
            faults.append(f"{path} is not there")
            return None
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            faults.append(f"{path} cannot be read as UTF-8 text: {error}")
            return None
        # As `wc -l` counts, not `splitlines`, which also ends lines at odd characters.
        sentences = [" ".join(line.split()) for line in text.removesuffix("\n").split("\n")]
        if split not in self.drop_empty and "" in sentences:
            faults.append(f"{path} has an empty line, number {sentences.index('') + 1:,}")
        if self.subwords and not any("@@ " in sentence for sentence in sentences):
            faults.append(f"{path} has no subword (@@): BPE has not been applied to it")
        return sentences


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = lzma.decompress(path.with_name(path.name + ".xz").read_bytes())
    return content.decode("utf-8")


def main(bitext: Bitext, *, description: str | None, out: str, argv: list[str] | None) -> int:
    """Run the command of a prepare script.

    Args:
        bitext: what the source must hold.
        description: the text of --help.
        out: the folder to write to where --out names none: the one the recipe reads.
        argv: the command line; None for this process's.

    Returns:
        The exit status.
    """
    parser = preparing.parser(description)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with the files")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help="folder to write to (default: %(default)s, where the recipe looks)",
    )
    args = parser.parse_args(argv)

    def prepare() -> None:
        if args.out.resolve() == args.source.resolve():
            raise SourceError(f"--out {args.out} is SOURCE itself: give another folder")
        files = bitext.read(args.source)
        preparing.apart((args.out / name for name in files), *args.source.iterdir())
        args.out.mkdir(parents=True, exist_ok=True)
        for name, sentences in files.items():
            preparing.write_lines(args.out / name, sentences)
            print(f"{args.out / name}: {len(sentences):,} sentences")

    return preparing.run(prepare)
