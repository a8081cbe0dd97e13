"""What the prepare scripts share: the command line, reports of faults, files written whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from opennmt_sd import atomic


class SourceError(ValueError):
    """What a script was given cannot be used; the text says why and what to do."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser whose --help is a script's own docstring, as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(work: Callable[[], None], *faults: type[Exception]) -> int:
    """Do the work; tell a :class:`SourceError`, an OSError or one of `faults` as a text.

    Returns:
        The exit status: 0, 2 where there was a fault, or 130 after Ctrl-C.
    """
    try:
        work()
    except (SourceError, OSError, *faults) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def apart(outputs: Iterable[Path], *inputs: Path) -> None:
    """Refuse to write over what is read, whatever its name is there.

    Raises:
        SourceError: an output is one of the inputs.
    """
    for output in outputs:
        for source in inputs:
            there = output.exists() and source.exists()
            if output.samefile(source) if there else output.resolve() == source.resolve():
                raise SourceError(f"{output} would be written over {source}: take another name")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write `lines` to `path`, all or nothing."""
    with atomic.writer(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
