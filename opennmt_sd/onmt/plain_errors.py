"""What a stock command says when this plugin refuses something: one text, no traceback, code 2."""

from __future__ import annotations

from pathlib import Path

from opennmt_sd.onmt.checkpoint import CheckpointError
from opennmt_sd.onmt.corpora import CorpusError
from opennmt_sd.onmt.vocabulary_file import VocabularyError
from opennmt_sd.seq2seq import plain_errors
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

OURS = (CheckpointError, CorpusError, UnsupportedOptionsError, VocabularyError)


def show_plainly() -> None:
    """Let the process of a command end with the text of an error of ours, and code 2."""
    plain_errors.show_plainly(OURS, _is_command)


def _is_command(program: Path) -> bool:
    """Return whether the process is ``onmt_train``, say, or ``python -m onmt.bin.train``."""
    return program.name.startswith("onmt_") or program.parts[-3:-1] == ("onmt", "bin")
