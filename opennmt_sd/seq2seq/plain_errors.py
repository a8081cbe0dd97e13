"""What a toolkit's command says when a plugin refuses something: one text, no traceback, code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


def show_plainly(
    kinds: tuple[type[BaseException], ...], is_command: Callable[[Path], bool]
) -> None:
    """Let the process of a command end with the text of an error of ours, and code 2.

    It replaces ``sys.excepthook``; where a toolkit is used as a library nothing happens.

    Args:
        kinds: our errors.
        is_command: whether a program is a command of the toolkit.
    """
    before = sys.excepthook
    if hasattr(before, "of_opennmt_sd") or not is_command(Path(sys.argv[0])):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, kinds):
            before(kind, error, trace)
            return
        sys.stdout.flush()
        print(f"{Path(sys.argv[0]).name}: error: {_text(error)}", file=sys.stderr)
        sys.exit(2)

    hook.of_opennmt_sd = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _text(error: BaseException) -> str:
    """Return the text, without the traceback that a worker of a DataLoader sends along."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.rpartition(f"{type(error).__name__}: ")[2].strip()
    return text
