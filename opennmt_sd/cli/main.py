"""The ``opennmt_sd`` command."""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import opennmt_sd


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; default: those of the process.

    Returns:
        0; 1 where something failed on the way, 2 where what was named cannot be used, 130 where it
        was stopped by Ctrl-C, each with one text on stderr. Wrong usage exits with 2.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "quickstart":
        parser.error(f"unknown arguments: {', '.join(_with_nearest(w, args.known) for w in rest)}")
    try:
        if args.command == "quickstart":
            from opennmt_sd.cli import quickstart

            return quickstart.main(rest)
        if args.command == "export":
            return _export(args.checkpoint, args.output, args.force)
        print("\n".join(f"{key:<12} {value}" for key, value in _facts().items()))
    except KeyboardInterrupt:
        print(f"\nopennmt_sd {args.command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


COMMANDS = ("export", "quickstart", "info")


class _Parser(argparse.ArgumentParser):
    """A parser that names the nearest command."""

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '(.*?)'", message)
        if found and (near := _nearest(found[1], COMMANDS)):
            message = f"there is no command {found[1]}: did you mean {near}?"
        super().error(message)


def _with_nearest(word: str, known: Sequence[str]) -> str:
    near = _nearest(word.partition("=")[0], known) if word.startswith("-") else None
    return f"{word} (did you mean {near}?)" if near else word


def _nearest(word: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, 1)), None)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="opennmt_sd", description="Structured dropout for recurrent networks.")
    parser.add_argument("--version", action="version", version=opennmt_sd.__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser
    )
    export = commands.add_parser(
        "export", help="write a checkpoint that stock OpenNMT-py loads without the plugin"
    )
    export.add_argument(
        "checkpoint", type=Path, help="a checkpoint trained with the plugin, or its folder"
    )
    export.add_argument(
        "-o", "--output", type=Path, help="default: CHECKPOINT with .stock before its suffix"
    )
    export.add_argument("--force", action="store_true", help="overwrite the output")
    # Its own parser reads the rest, --help included.
    commands.add_parser(
        "quickstart", add_help=False, help="train a small translator and print its BLEU score"
    )
    info = commands.add_parser("info", help="versions and engines, for a bug report")
    for command in (export, info):
        command.set_defaults(known=re.findall(r"--\w+", command.format_help()))
    return parser


def _export(checkpoint: Path, output: Path | None, force: bool) -> int:
    from opennmt_sd.onmt.checkpoint import CheckpointError, file_of
    from opennmt_sd.onmt.export import ExportError, WriteError, export

    try:
        source = file_of(checkpoint)
        target = output or source.parent / f"{source.stem}.stock{source.suffix}"
        export(source, target, force=force)
    except (CheckpointError, ExportError) as error:
        print(f"opennmt_sd export: {error}", file=sys.stderr)
        return 1 if isinstance(error, WriteError) else 2
    print(target)
    return 0


def _facts() -> dict[str, str]:
    """List what a bug report should say."""
    facts = {"opennmt_sd": opennmt_sd.__version__, "python": platform.python_version()}
    facts["platform"] = platform.platform()
    for package in ("torch", "OpenNMT-py", "eole", "numpy"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if facts["torch"] != "not installed":
        import torch

        from opennmt_sd.ops import engine_for
        from opennmt_sd.ops.cpu import bfloat16, native

        facts["torch"] = torch.__version__  # with its build, such as +cu121
        facts["engine"] = f"{engine_for('cpu')} (cpu)"
        facts["native"] = "there" if native() else "missing"
        if native():
            known = "multiplied in it (AVX512_BF16 of AMD)"
            other = f"multiplied in float32: {bfloat16.MISSING}"
            facts["bfloat16"] = known if bfloat16.known() else other
        facts["calibration"] = _calibration()
    facts["autoload"] = _autoload()
    return facts


def _calibration() -> str:
    """Tell what was chosen by measurement, a line a choice, and where that is kept."""
    from opennmt_sd.ops import calibration
    from opennmt_sd.ops.calibration import cache_file
    from opennmt_sd.ops.calibration.choices import SWITCH

    switch = "on" if calibration.calibrates() else f"off ({SWITCH}=0)"
    measured = cache_file.read()
    lines = [f"{switch}, {len(measured)} choices in {cache_file.path() or 'no file: no home'}"]
    lines += [f"{calibration.described(t)}: {text}" for text, t in sorted(measured.items())]
    return ("\n" + 13 * " ").join(lines)


def _autoload() -> str:
    """Tell whether the plugin loads into stock commands of this environment."""
    from opennmt_sd import _autoload as autoload

    if os.environ.get(autoload.SWITCH) == "0":
        return f"off ({autoload.SWITCH}=0)"
    if not autoload.is_armed():
        return "off (opennmt_sd_autoload.pth is not in this environment)"
    return "on"


if __name__ == "__main__":
    sys.exit(main())
