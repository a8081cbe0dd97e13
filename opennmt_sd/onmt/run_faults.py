"""Settings of a training run that end in a traceback of stock's, in silence, or never."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch

from opennmt_sd.onmt.weights import either, sizes

_AT_LEAST_1 = ("batch_size", "valid_batch_size", "bucket_size", "valid_steps", "report_every")
_PACKAGES = {"fusedadam": "apex", "adamw8bit": "bitsandbytes", "pagedadamw8bit": "bitsandbytes",
             "pagedadamw32bit": "bitsandbytes"}  # fmt: skip


def run_faults(opt: Namespace) -> list[str]:
    """Return why this run cannot be, whatever its model, one text each."""
    return [*_device_faults(opt), *_number_faults(opt)]


def size_faults(model_opt: Namespace) -> list[str]:
    """Return which sizes of a model of ours do not fit each other, one text each."""
    return [*_size_faults(model_opt)]


def head_faults(opt: Namespace) -> list[str]:
    """Return whether a transformer decoder behind an encoder of ours could be built."""
    hidden = either(opt, "hidden_size", "dec_hid_size")
    if opt.decoder_type != "transformer" or hidden % opt.heads == 0:
        return []
    return [
        f"decoder_type transformer needs a hidden_size that heads divides: {hidden} is no multiple "
        f"of {opt.heads}: set heads, or another hidden_size"
    ]


def step_faults(checkpoint: Mapping[str, Any], opt: Namespace) -> list[str]:
    """Return why this run would end where it begins, after one stray step and a checkpoint."""
    state = checkpoint.get("optim")
    if opt.reset_optim == "all" or not isinstance(state, Mapping):
        return []
    done = int(state.get("training_step", 1)) - 1
    if 0 < opt.train_steps <= done and not opt.single_pass:
        return [
            f"train_steps {opt.train_steps} is reached: {opt.train_from} is of step {done}: set "
            f"train_steps above {done}, or reset_optim: all to count from 1"
        ]
    return []


def optimizer_faults(checkpoint: Mapping[str, Any], opt: Namespace) -> list[str]:
    """Return why this run cannot go on with a checkpoint's optimizer.

    A checkpoint that was released or averaged has none; with a new one, and the checkpoint's
    options of it, training begins at step 1.
    """
    if opt.reset_optim == "all" or "optim" not in checkpoint:
        return []
    state = checkpoint["optim"]
    if state is None and opt.reset_optim != "states":
        return []
    if isinstance(state, Mapping) and {"training_step", "decay_step", "optimizer"} <= set(state):
        return []
    return [
        f"train_from {opt.train_from} has no state of an optimizer: add reset_optim: all to begin "
        "at step 1 with its weights"
    ]


def gpus() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _device_faults(opt: Namespace) -> Iterator[str]:
    ranks, size = list(opt.gpu_ranks), opt.world_size
    if size > 1 and not ranks:
        yield (
            f"world_size {size} without gpu_ranks would train nothing: set gpu_ranks, one for each "
            "GPU of this machine, or world_size: 1 to train on the CPU"
        )
    if len(ranks) > size:
        yield (f"gpu_ranks {ranks} are more than world_size {size}: set world_size: {len(ranks)}")
    elif len(ranks) == size and ranks and sorted(ranks) != [*range(size)]:
        yield (
            f"gpu_ranks {ranks} must be {[*range(size)]} with world_size {size} on one machine: "
            "they are ranks, CUDA_VISIBLE_DEVICES chooses the GPUs"
        )
    count = gpus()
    if len(ranks) > count:
        needed = f"gpu_ranks {ranks} needs {len(ranks)} GPU{'s' * (len(ranks) > 1)}, torch sees "
        if count:
            yield f"{needed}{count}: set gpu_ranks: {[*range(count)]} and world_size: {count}"
        else:
            yield (f"{needed}none: remove gpu_ranks and world_size to train on the CPU")


def _number_faults(opt: Namespace) -> Iterator[str]:
    for key in _AT_LEAST_1:
        if getattr(opt, key) < 1:
            yield f"{key} {getattr(opt, key)} must be at least 1"
    counts, steps = list(opt.accum_count), list(opt.accum_steps)
    if len(counts) != len(steps):
        yield (
            f"accum_count {counts} and accum_steps {steps} must be equally long: give the step "
            "after which each count holds, the first is 0"
        )
    if min(counts, default=1) < 1:
        yield f"accum_count {counts} must be at least 1"
    drawn = not opt.train_from or opt.update_vocab
    if drawn and opt.param_init == 0 and not opt.param_init_glorot:
        yield (
            "param_init 0 draws no weights: set param_init: 0.1 (the default), or "
            "param_init_glorot: true"
        )
    if opt.learning_rate < 0:
        yield f"learning_rate {opt.learning_rate} must not be negative"
    if not 0 <= opt.label_smoothing < 1:
        yield f"label_smoothing {opt.label_smoothing} is outside [0, 1)"
    if opt.decay_method in ("noam", "noamwd", "rsqrt") and opt.warmup_steps < 1:
        method = opt.decay_method
        yield f"warmup_steps {opt.warmup_steps} must be at least 1 with decay_method {method}"
    if opt.early_stopping > 0 and opt.early_stopping_criteria is not None:
        unknown = set(opt.early_stopping_criteria) - {"ppl", "accuracy"}
        for name in sorted(unknown):
            yield f"early_stopping_criteria {name} is unknown: use accuracy or ppl"
    package = _PACKAGES.get(opt.optim)
    if package and find_spec(package) is None:
        yield f"optim {opt.optim} needs {package}, which is not installed: set optim: adam"


def _size_faults(opt: Namespace) -> Iterator[str]:
    hidden, widths, layers = sizes(opt).values()
    if hidden[0] != hidden[1]:
        yield (
            f"enc_hid_size {hidden[0]} and dec_hid_size {hidden[1]} must be equal: "
            f"set hidden_size: {max(hidden)}"
        )
    for key, values in (("hidden_size", hidden), ("word_vec_size", widths), ("layers", layers)):
        if min(values) < 1:
            yield f"{key} {min(values)} must be at least 1"
    if opt.share_embeddings:
        if not opt.share_vocab:
            yield (
                "share_embeddings needs one vocabulary for both sides: add share_vocab: true, and "
                "make src_vocab with it"
            )
        if widths[0] != widths[1]:
            yield (
                f"share_embeddings needs one width, src_word_vec_size is {widths[0]} and "
                f"tgt_word_vec_size {widths[1]}: set word_vec_size: {widths[0]}"
            )
    if opt.share_decoder_embeddings and widths[1] != hidden[1]:
        yield (
            f"share_decoder_embeddings ties the target embeddings, {widths[1]} wide, to the "
            f"generator, which needs hidden_size {hidden[1]}: set word_vec_size: {hidden[1]}, or "
            "remove share_decoder_embeddings"
        )
    if opt.encoder_type == "mean" and widths[0] != hidden[1]:
        yield (
            f"encoder_type mean gives the decoder the source embeddings, {widths[0]} wide, and it "
            f"needs hidden_size {hidden[1]}: set word_vec_size: {hidden[1]}"
        )
