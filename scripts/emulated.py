#!/usr/bin/env python3
"""Train with a draw that the package does not have, emulated by masks: for its quality alone.

    python scripts/emulated.py "4 groups" onmt_sd_train -config ... -sd_space random
    python scripts/emulated.py "2 groups" opennmt_sd_train_lm model.dropout.nr.space=random ...

The draws are those of `python scripts/benchmark.py suite=noise`. Every place that drops must have
the space random; nothing shrinks.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import preparing
from preparing import SourceError

from opennmt_sd.benchmark.draws import emulated, named


def main(argv: list[str] | None = None) -> int:
    """Exit codes: those of the command; 2: an unknown draw or command."""
    given = sys.argv[1:] if argv is None else argv
    if len(given) < 2 or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if given else 2
    name, command, *arguments = given

    def work() -> None:
        try:
            draw = named(name)
        except ValueError as error:
            raise SourceError(str(error)) from None
        found = entry_points(group="console_scripts", name=command)
        if not found:
            raise SourceError(f"there is no command {command} in this environment")
        sys.argv = [command, *arguments]
        with emulated(draw):
            next(iter(found)).load()()

    return preparing.run(work)


if __name__ == "__main__":
    sys.exit(main())
