"""What a translation cannot do is refused before it begins, all faults at once."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from opennmt_sd.onmt.checkpoint import CheckpointError, read
from opennmt_sd.onmt.names import DECODERS
from opennmt_sd.onmt.refusals import UnsupportedOptionsError

RNN_DECODERS = ("rnn", "ifrnn", *DECODERS)


def check_translation(opt: Namespace, model_path: str) -> None:
    """Refuse what translation cannot do with an RNN decoder, stock's or ours.

    Raises:
        UnsupportedOptionsError: the text names every such option.
    """
    faults = _model_faults(opt, model_path)
    if faults:
        raise UnsupportedOptionsError(faults)


def command_faults(opt: Namespace) -> list[str]:
    """Return why the translation that parsed options ask for cannot be, one text each."""
    faults = [fault for path in opt.models for fault in _model_faults(opt, path)]
    return [*dict.fromkeys(faults), *_line_faults(opt)]


def _model_faults(opt: Namespace, path: str) -> list[str]:
    # KeyError, AttributeError or TypeError in stock: RNN decoders never fill attns["align"].
    align = _asked(opt, "report_align", "gold_align", "align_debug")
    attention = _asked(opt, "replace_unk", "attn_debug", "coverage_penalty")
    if not align + attention:
        return []
    try:
        model_opt = read(path, mmap=True)["opt"]
    except CheckpointError:
        return []  # stock is about to say so
    decoder = getattr(model_opt, "decoder_type", None)
    if decoder not in RNN_DECODERS:
        return []
    faults = [
        f"{key} does not work with decoder_type {decoder}: RNN decoders give no "
        "alignment. Remove it, and align the finished translations with a word aligner"
        for key in align
    ]
    if getattr(model_opt, "global_attention", "general") in ("none", None):
        faults += [
            f"{key} needs attention, and {path} was trained with global_attention none: remove it"
            for key in attention
        ]
    return faults


def _asked(opt: Namespace, *keys: str) -> list[str]:
    return [key for key in keys if getattr(opt, key, None) not in (None, False, "none")]


def _line_faults(opt: Namespace) -> list[str]:
    """A target file of another length: stock stops in silence where the shorter one ends."""
    src, tgt = getattr(opt, "src", None), getattr(opt, "tgt", None)
    if not (src and tgt and os.path.isfile(src) and os.path.isfile(tgt)):
        return []
    counts = [_lines(path) for path in (src, tgt)]
    if counts[0] == counts[1]:
        return []
    return [
        f"src {src} has {counts[0]} lines and tgt {tgt} has {counts[1]}: give one target line for "
        "each source line (a blank one where there is none)"
    ]


def _lines(path: str | os.PathLike[str]) -> int:
    with open(path, "rb") as file:
        lines: Any = sum(1 for _ in file)
    return int(lines)
