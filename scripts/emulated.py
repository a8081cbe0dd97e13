#!/usr/bin/env python3
"""Train with what is not there, emulated: for its quality alone.

    python scripts/emulated.py "4 groups" onmt_sd_train -config ... -sd_space random
    python scripts/emulated.py "2 groups" opennmt_sd_train_lm model.dropout.nr.space=random ...
    python scripts/emulated.py bfloat16 opennmt_sd_train_tagger trainer.matmul_precision=medium ...

A draw that the package does not have, of those of `python scripts/benchmark.py suite=noise`, is
made of masks: every place that drops must have the space random, and nothing shrinks. Products in
bfloat16 give the bits of a processor that makes them, and take longer than those of float32.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import preparing
from preparing import SourceError

from opennmt_sd.benchmark.draws import emulated, named
from opennmt_sd.ops.cpu import bfloat16


def main(argv: list[str] | None = None) -> int:
    """Exit codes: those of the command; 2: an unknown name or command."""
    given = sys.argv[1:] if argv is None else argv
    asked = given[:1] in (["-h"], ["--help"])
    if asked or len(given) < 2:
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, command, *arguments = given

    def work() -> None:
        try:
            context = bfloat16.emulated() if name == "bfloat16" else emulated(named(name))
        except ValueError as error:
            raise SourceError(f"{error}; or bfloat16") from None
        found = entry_points(group="console_scripts", name=command)
        if not found:
            raise SourceError(f"there is no command {command} in this environment")
        sys.argv = [command, *arguments]
        with context:
            next(iter(found)).load()()

    return preparing.run(work)


if __name__ == "__main__":
    sys.exit(main())
