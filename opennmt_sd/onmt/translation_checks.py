"""What a translation cannot do is refused before it begins, all faults at once."""

from __future__ import annotations

import os
from argparse import Namespace

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
    return [*dict.fromkeys(faults), *_size_faults(opt), *_line_faults(opt)]


def _size_faults(opt: Namespace) -> list[str]:
    """Name sizes that leave nothing to choose: an IndexError in stock, after the first batch."""
    faults = []
    if opt.n_best > opt.beam_size:
        faults.append(
            f"n_best {opt.n_best} is more than beam_size {opt.beam_size} can find: "
            f"set beam_size: {opt.n_best} or more"
        )
    if opt.max_length < 1:
        faults.append(f"max_length {opt.max_length} leaves no room: set 1 or more")
    return faults


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
    """Name files that cannot be read, and a target of another length: stock stops in silence where
    the shorter one ends."""
    paths = {name: getattr(opt, name, None) for name in ("src", "tgt")}
    faults, counts = [], {}
    for name, path in paths.items():
        if not path or not os.path.isfile(path):  # a missing one is stock's to say
            continue
        with open(path, "rb") as file:
            number = 0
            try:
                for line in file:
                    number += 1
                    line.decode()
            except UnicodeDecodeError as error:
                faults.append(
                    f"{name} {path}, line {number}: not UTF-8 ({error.reason}, byte "
                    f"{error.start + 1} of the line): convert it, as with iconv -f latin1 -t utf-8"
                )
            counts[name] = number
    if not faults and len(set(counts.values())) == 2:
        faults.append(
            f"src {paths['src']} has {counts['src']} lines and tgt {paths['tgt']} has "
            f"{counts['tgt']}: give one target line for each source line (a blank one where there "
            "is none)"
        )
    return faults
