"""`opennmt_sd quickstart`: from plain text to a BLEU score, with the stock OpenNMT-py commands.

It builds a vocabulary, trains, translates held-out sentences and scores them, each step by the
command that a person would type. Run again, it goes on where it was: a finished training is not
repeated, an interrupted one resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opennmt_sd import _autoload as autoload
from opennmt_sd.cli.quickstart_folder import (
    CONF,
    TRAIN_CONFIG,
    TRANSLATE_CONFIG,
    QuickstartError,
    UnusableError,
    make_folder,
    newest_checkpoint,
    read,
    write_configs,
)
from opennmt_sd.cli.stock import CommandError, Progress, clock, run
from opennmt_sd.data import TATOEBA

SHOWN = 5  # translations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``opennmt_sd quickstart``."""
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="FOLDER",
        help="where everything is written (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        argv: the arguments; default: those of the process.

    Returns:
        0; 1 where something failed on the way; 2 where it cannot start; 130 where it was
        interrupted; and the exit code of a stock command that failed.
    """
    parser = argparse.ArgumentParser(
        prog="opennmt_sd quickstart",
        description="Train a small German-English translator with structured dropout, translate "
        "held-out sentences, print BLEU: about 5 minutes on 2 cores. Run again, it goes on.",
    )
    add_arguments(parser)
    folder = parser.parse_args(argv).dir.absolute()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the command too
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # umlauts on an ASCII terminal
    try:
        check_environment()
        quickstart(folder, settings_for(folder))
    except CommandError as error:
        print(f"\nopennmt_sd quickstart: {error}", file=sys.stderr)
        return error.code
    except (QuickstartError, OSError) as error:
        print(f"opennmt_sd quickstart: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnusableError) else 1
    except KeyboardInterrupt:
        print("\nopennmt_sd quickstart: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


def check_environment() -> None:
    """Refuse at once what would fail minutes later.

    Raises:
        UnusableError: OpenNMT-py is missing, or would not find the plugin.
    """
    missing = [name for name in ("onmt", "sacrebleu", "yaml") if not importlib.util.find_spec(name)]
    if missing:
        raise UnusableError(
            f"needs OpenNMT-py, but {', '.join(missing)} is not installed for {sys.executable}. "
            "In a checkout of opennmt_sd: make setup, or pip install '.[onmt]'"
        )
    if os.environ.get(autoload.SWITCH) == "0":
        raise UnusableError(
            f"{autoload.SWITCH}=0 keeps structured dropout out of the stock commands: unset it"
        )
    if not autoload.is_armed():
        raise UnusableError(
            "opennmt_sd is not installed in this environment, only importable, so the stock "
            "commands would not find it. In a checkout: make setup, or pip install ."
        )


def settings_for(folder: Path) -> dict[str, Any]:
    """Read conf/onmt/quickstart.yaml, its paths made absolute, for a run in `folder`."""
    import yaml  # type: ignore[import-untyped]  # it ships no types

    homes = {"opennmt_sd/data/tatoeba-de-en": TATOEBA, "runs/quickstart": folder}

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(inner) for key, inner in value.items()}
        if isinstance(value, str):
            for shipped, home in homes.items():
                if value.startswith(shipped + "/"):
                    return str(home / value[len(shipped) + 1 :])
        return value

    settings: dict[str, Any] = placed(yaml.safe_load(read(CONF / TRAIN_CONFIG)))
    # The vocabulary that ships would do; building it is part of what this shows.
    for key in ("src_vocab", "tgt_vocab"):
        settings[key] = str(folder / Path(settings[key]).name)
    return settings


def quickstart(folder: Path, settings: dict[str, Any]) -> None:
    """Run all four steps; see the module.

    Args:
        folder: where everything is written; made where it is missing.
        settings: those of an OpenNMT-py training, as `settings_for` gives them.

    Raises:
        CommandError: a stock command is missing or has failed.
        QuickstartError: `folder` holds a training with other settings; or a command has ended
            well but not written what it should.
    """
    began = time.monotonic()
    make_folder(folder)
    write_configs(folder, settings)
    config, last_step = folder / TRAIN_CONFIG, settings["train_steps"]
    checkpoint = newest_checkpoint(folder)

    print("== 1/4 Vocabulary")
    vocabularies = [Path(settings[key]) for key in ("src_vocab", "tgt_vocab")]
    if checkpoint and all(path.exists() for path in vocabularies):
        print("  built before")
    else:
        options = ("-config", config, "-n_sample", "-1", "-overwrite")
        run("onmt_build_vocab", *options, log=folder / "build_vocab.log", show=_nothing)
        print(
            f"  {' and '.join(f'{len(_lines(path)):,}' for path in vocabularies)} different tokens"
        )

    print("== 2/4 Training")
    checkpoint = _train(config, folder, checkpoint, last_step)

    print("== 3/4 Translation of held-out sentences")
    source, reference = TATOEBA / "test.de", TATOEBA / "test.en"
    output = folder / "test.hyp.en"
    model = ("-config", folder / TRANSLATE_CONFIG, "-model", checkpoint[1])
    files = ("-src", source, "-output", output)
    run("onmt_translate", *model, *files, log=folder / "translate.log", show=_nothing)
    counts = len(_lines(output)), len(_lines(source))
    if counts[0] != counts[1]:
        raise QuickstartError(
            f"{output} has {counts[0]} lines, but {source} has {counts[1]}: see "
            f"{folder / 'translate.log'}"
        )

    print("== 4/4 BLEU")
    show_scores(source, reference, output)
    print("Written:")
    for path in sorted(folder.iterdir()):
        print(f"  {path}")
    print(f"Done in {clock(time.monotonic() - began)}.")


def _train(
    config: Path, folder: Path, checkpoint: tuple[int, Path] | None, last_step: int
) -> tuple[int, Path]:
    """Train to the last step, from a checkpoint where there is one; return the newest one."""
    if checkpoint and checkpoint[0] == last_step:
        print(f"  finished before: {checkpoint[1]}")
        return checkpoint
    resume = ("-train_from", checkpoint[1]) if checkpoint else ()
    progress = Progress(start=checkpoint[0] if checkpoint else 0)
    try:
        run("onmt_train", "-config", config, *resume, log=folder / "train.log", show=progress)
    finally:
        progress.close()
    trained = newest_checkpoint(folder)
    if not trained or trained[0] != last_step:
        raise QuickstartError(
            f"onmt_train ended well, but there is no whole {folder / 'model_step'}_{last_step}"
            f".pt. Is the disk full? Its output: {folder / 'train.log'}"
        )
    return trained


def show_scores(source: Path, reference: Path, output: Path) -> None:
    """Print a few translations, and BLEU with the signature that says how it was counted."""
    from sacrebleu.metrics import BLEU

    rows = list(zip(*map(_lines, (source, output, reference)), strict=True))
    for row in rows[:: max(len(rows) // SHOWN, 1)][:SHOWN]:
        for label, sentence in zip(("source", "translation", "reference"), row, strict=True):
            print(f"  {label:<11}  {sentence}")
        print()
    bleu = BLEU()
    _, translations, references = zip(*rows, strict=True)
    score = bleu.corpus_score(translations, [references])
    print(f"BLEU {score.score:.1f} on {len(rows)} held-out sentences ({bleu.get_signature()})")


def _lines(path: Path) -> list[str]:
    return read(path).split("\n")[:-1]  # as `wc -l` counts them


def _nothing(line: str) -> None:
    """Shows none of a short command's output: it is in the log."""


if __name__ == "__main__":
    sys.exit(main())
