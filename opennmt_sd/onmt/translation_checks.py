"""What a translation cannot do is refused before it begins, all faults at once."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from opennmt_sd.onmt.checkpoint import CheckpointError, file_of, read
from opennmt_sd.onmt.input_faults import file_fault
from opennmt_sd.onmt.names import DECODERS
from opennmt_sd.onmt.run_faults import gpus
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

AFFIXES = ("prefix", "suffix")  # transforms that put words before or behind a line
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
    faults = [*dict.fromkeys(faults), *_size_faults(opt), *_device_faults(opt)]
    return [*faults, *_line_faults(opt)]


def place_faults(opt: Namespace) -> list[str]:
    """Return what is wrong with the files of ``onmt_translate``, one text each.

    Stock opens the output, and empties it, before it reads anything.
    """
    inputs = {"src": opt.src, "tgt": opt.tgt, "phrase_table": opt.phrase_table}
    inputs = {name: path for name, path in inputs.items() if path}
    faults = [
        fault
        for name, path in inputs.items()
        for fault in file_fault(name, path, "a text file", pipes=True)
    ]
    faults += _output_faults(opt, inputs)
    if opt.tgt_file_prefix and not opt.tgt and not _gives_target(opt):
        faults.append(
            "tgt_file_prefix needs the prefixes: add tgt, one line for each source line, or one for"
            " all: transforms: [prefix] with tgt_prefix"
        )
    return faults


def _gives_target(opt: Namespace) -> bool:
    """Return whether a transform makes a target for every line."""
    return any(kind in opt.transforms and getattr(opt, f"tgt_{kind}") for kind in AFFIXES)


def _output_faults(opt: Namespace, inputs: dict[str, str]) -> Iterator[str]:
    models = [("model", path) for path in opt.models]
    for name, path in [*inputs.items(), *models]:
        if _is_file(opt.output, path):
            yield (
                f"output {opt.output} is the file of {name}, which would be emptied before it is "
                "read: give another output"
            )
    for name, path in (("output", opt.output), ("log_file", opt.log_file)):
        folder = Path(path).absolute().parent
        if not path:
            continue
        if os.path.isdir(path):
            yield f"{name} {path}: this is a folder: give a file"
        elif not folder.is_dir():
            yield f"{name} {path}: there is no folder {folder}: make it first"
        elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
            yield f"{name} {path}: you may not write there: name another path"


def _is_file(output: str, path: str) -> bool:
    """Return whether an output is a file that is read: a folder stands for its last checkpoint."""
    if not (os.path.isfile(output) and os.path.exists(path)):
        return False
    try:
        return os.path.samefile(output, file_of(path))
    except CheckpointError:
        return False  # stock is about to say so


def _size_faults(opt: Namespace) -> list[str]:
    """Name numbers that leave nothing to choose, or that no probability can have: an IndexError in
    stock, after the first batch, or words that mean nothing."""
    faults = [
        f"{key} {getattr(opt, key)} must be at least 1"
        for key in ("beam_size", "n_best", "batch_size")
        if getattr(opt, key) < 1
    ]
    if opt.n_best > opt.beam_size > 0:
        faults.append(
            f"n_best {opt.n_best} is more than beam_size {opt.beam_size} can find: "
            f"set beam_size: {opt.n_best} or more"
        )
    if opt.max_length < 1:
        faults.append(f"max_length {opt.max_length} leaves no room: set 1 or more")
    if not 0 <= opt.random_sampling_topp <= 1:
        faults.append(f"random_sampling_topp {opt.random_sampling_topp} is outside [0, 1]")
    if opt.random_sampling_temp < 0:
        faults.append(
            f"random_sampling_temp {opt.random_sampling_temp} must not be negative: 0 takes the "
            "likeliest word, 1 draws as the model says"
        )
    if getattr(opt, "dump_beam", ""):
        faults.append("dump_beam is not there in OpenNMT-py 3: remove it")
    return faults


def _device_faults(opt: Namespace) -> Iterator[str]:
    """Name GPUs that there are not: a traceback in stock, and with several no end at all."""
    count = gpus()
    sees = f"torch sees {count or 'none'}"
    if opt.gpu >= count:
        yield f"gpu {opt.gpu} is not there, {sees}: set gpu: -1 to translate on the CPU"
    if opt.world_size > 1 and opt.world_size > count:
        yield (
            f"world_size {opt.world_size} needs as many GPUs, {sees}: remove world_size and "
            "gpu_ranks to translate in one process"
        )


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
        if not path or not os.path.isfile(path):  # no file: a server's, or `place_faults` says so
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
