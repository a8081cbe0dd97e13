"""What a stock command says when this plugin refuses something: one text, no traceback, code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from opennmt_sd.onmt.checkpoint import CheckpointError
from opennmt_sd.onmt.corpora import CorpusError
from opennmt_sd.onmt.refusals import UnsupportedOptionsError
from opennmt_sd.onmt.vocabulary_file import VocabularyError

OURS = (CheckpointError, CorpusError, UnsupportedOptionsError, VocabularyError)


def show_plainly() -> None:
    """Let the process of a command end with the text of an error of ours, and code 2.

    It replaces ``sys.excepthook``; where OpenNMT-py is used as a library nothing happens.
    """
    before = sys.excepthook
    if hasattr(before, "of_opennmt_sd") or not _is_command(Path(sys.argv[0])):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, OURS):
            before(kind, error, trace)
            return
        sys.stdout.flush()
        print(f"{Path(sys.argv[0]).name}: error: {_text(error)}", file=sys.stderr)
        sys.exit(2)

    hook.of_opennmt_sd = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _is_command(program: Path) -> bool:
    """Return whether the process is ``onmt_train``, say, or ``python -m onmt.bin.train``."""
    return program.name.startswith("onmt_") or program.parts[-3:-1] == ("onmt", "bin")


def _text(error: Exception) -> str:
    """Return the text, without the traceback that a worker of a DataLoader sends along."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.rpartition(f"{type(error).__name__}: ")[2].strip()
    return text
