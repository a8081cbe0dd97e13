"""What cannot work with the plugin's types is refused before data is read, all faults at once."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opennmt_sd.onmt.checkpoint import CheckpointError, read
from opennmt_sd.onmt.names import (
    has_our_decoder,
    has_our_encoder,
    is_bidirectional,
    is_ours,
)
from opennmt_sd.onmt.options import ignored_faults, option_faults
from opennmt_sd.onmt.run_faults import (
    optimizer_faults,
    run_faults,
    size_faults,
    step_faults,
)
from opennmt_sd.onmt.weights import either, loss_faults, shape_faults
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError


@dataclass(frozen=True)
class Refusal:
    """One option that cannot work.

    Args:
        option: its name.
        bad: whether a value is one that cannot.
        why: the reason and the remedy.
        of_model: whether the value the model is built from counts (a checkpoint's on resume).
        of_run: whether the value of this run counts.
    """

    option: str
    bad: Callable[[Any], bool]
    why: str
    of_model: bool = True
    of_run: bool = False


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _set(value: Any) -> bool:
    return bool(value)


CELLS = ("LSTM", "GRU")

# What stock OpenNMT-py 3.5.1 does with each stands in the comment.
REFUSALS = (
    # SRU needs cupy and CUDA. A checkpoint made elsewhere may have more: any RNN of torch's.
    Refusal("rnn_type", lambda value: value not in CELLS, "structured dropout is there for LSTM "
            "and GRU: set rnn_type: LSTM or rnn_type: GRU, or take the stock types (encoder_type: "
            "brnn, decoder_type: rnn)"),
    # TypeError on the first batch: a language model's decoder has no encoder state.
    Refusal("model_task", _is("lm"), "OpenNMT-py's language models are transformers only: set "
            "model_task: seq2seq, or decoder_type: transformer_lm"),
    # ValueError from the loss, on the first target longer than N.
    Refusal("truncated_decoder", _set, "OpenNMT-py fails on the first target longer than that: "
            "remove it, and bound the lengths with the filtertoolong transform instead",
            of_model=False, of_run=True),
    # Fails in the first optimizer step.
    Refusal("optim", _is("sparseadam"), "OpenNMT-py builds no sparse gradients for it and fails "
            "in the first step: set optim: adam", of_run=True),
    # TypeError on the first batch.
    Refusal("generator_function", _is("sparsemax"), "OpenNMT-py fails on it on the first batch: "
            "set generator_function: softmax", of_model=False, of_run=True),
    # Writes a checkpoint that neither translate nor resume can load.
    Refusal("save_format", _is("safetensors"), "OpenNMT-py cannot load such a checkpoint again: "
            "set save_format: pytorch", of_model=False, of_run=True),
)  # fmt: skip

RNN_DECODER_REFUSALS = (
    # AssertionError.
    Refusal("lambda_align", lambda value: (value or 0) > 0, "RNN decoders give no alignment to "
            "train on: set lambda_align: 0, or decoder_type: transformer", of_run=True),
)  # fmt: skip


def _combinations(opt: Namespace) -> list[str]:
    """Find what goes wrong together. Stock fails on all of these, without a text."""
    faults = []
    encoder, hidden = opt.encoder_type, either(opt, "hidden_size", "enc_hid_size")
    layers = [either(opt, "layers", f"{side}_layers") for side in ("enc", "dec")]
    if encoder in ("transformer", "cnn"):
        faults.append(
            f"encoder_type {encoder} gives no state that an RNN decoder could start from: "
            "set encoder_type: sd_brnn or brnn"
        )
    if is_bidirectional(opt) and hidden % 2:
        faults.append(
            f"hidden_size {hidden} must be even with encoder_type {encoder}: "
            "each direction has half of it"
        )
    if layers[0] != layers[1] and (layers[1] > layers[0] or not opt.input_feed):
        faults.append(
            f"enc_layers {layers[0]} and dec_layers {layers[1]}: the decoder's layers start from "
            "the encoder's, one from each: give both the same number"
        )
    if encoder == "ggnn" and not opt.input_feed and layers[1] != 4:
        faults.append(
            f"encoder_type ggnn gives 4 states, and {layers[1]} layers with input_feed: 0 start "
            "from as many: set input_feed: 1, or layers: 4"
        )
    if opt.coverage_attn and not opt.input_feed:
        faults.append("coverage_attn needs input_feed: 1 (it is 0)")
    return faults + (_copy_faults(opt) if opt.copy_attn else [])


def _copy_faults(opt: Namespace) -> list[str]:
    """Find what `copy_attn` cannot go with. Stock fails on all but the last, without a text."""
    faults = []
    if not opt.input_feed:
        faults.append("copy_attn needs input_feed: 1 (it is 0)")
    kind = opt.global_attention if opt.reuse_copy_attn else opt.copy_attn_type
    if kind in (None, "none") and opt.global_attention in (None, "none"):
        faults.append(
            "copy_attn needs attention to copy from: set copy_attn_type: mlp (without "
            "reuse_copy_attn), or a global_attention other than none"
        )
    if opt.encoder_type == "ggnn":
        faults.append("copy_attn copies words, and encoder_type ggnn attends to nodes: remove one")
    if getattr(opt, "update_vocab", False):
        faults.append("copy_attn does not work with update_vocab: remove update_vocab")
    if getattr(opt, "label_smoothing", 0):
        faults.append(
            f"label_smoothing {opt.label_smoothing} would be ignored with copy_attn: "
            "set label_smoothing: 0"
        )
    return faults


def _schedule_faults(opt: Namespace) -> list[str]:
    """Check schedules. Stock asserts these too, but of `accum_steps`, and of what RNNs ignore."""
    steps = len(opt.dropout_steps)
    faults = []
    if len(opt.dropout) != steps:
        faults.append(
            f"dropout and dropout_steps must be equally long, got {len(opt.dropout)} and {steps}: "
            "give one rate for each step"
        )
    if len(opt.attention_dropout) != steps:
        faults.append(
            "attention_dropout and dropout_steps must be equally long, got "
            f"{len(opt.attention_dropout)} and {steps}: RNNs do not use it, but OpenNMT-py counts "
            f"it: set attention_dropout: {[0.0] * steps}"
        )
    return faults


def training_faults(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Say why a training run cannot work, one text each; empty when it can.

    Args:
        model_opt: the options the model is built from. On a resume without ``--override_opts``
            these are the checkpoint's.
        opt: the options of this run (the same object where nothing is resumed).
    """
    resumed = model_opt is not opt
    faults = option_faults(opt)
    if resumed:
        faults += [text for text in option_faults(model_opt) if text not in faults]
        faults += _unmet_types(model_opt, opt)
    if not resumed or not (is_ours(model_opt) or is_ours(opt)):
        faults += ignored_faults(opt)
    if not is_ours(model_opt):
        return faults
    faults += _unknown_types(model_opt)
    faults += _schedule_faults(opt) + run_faults(opt) + size_faults(model_opt)
    if resumed:
        faults += loss_faults(model_opt, opt)
    refusals = list(REFUSALS)
    if has_our_decoder(model_opt) or getattr(model_opt, "decoder_type", None) == "rnn":
        refusals += RNN_DECODER_REFUSALS
        faults += _combinations(model_opt)
    for refusal in refusals:
        sources = [model_opt] * refusal.of_model + [opt] * refusal.of_run
        values = [getattr(source, refusal.option, None) for source in sources]
        bad = next((value for value in values if refusal.bad(value)), None)
        if bad is not None:
            faults.append(f"{refusal.option} {bad} does not work here: {refusal.why}")
    return faults


def _unknown_types(opt: Namespace) -> list[str]:
    """Name types that stock does not know, or cannot join to an RNN of ours."""
    from onmt.decoders import str2dec
    from onmt.encoders import str2enc

    faults = [
        f"{key} {getattr(opt, key)} is unknown: use {', '.join(sorted(known))}"
        for key, known in (("encoder_type", str2enc), ("decoder_type", str2dec))
        if getattr(opt, key) not in known and not getattr(opt, key).startswith("sd_")
    ]
    if opt.decoder_type == "cnn":
        faults.append(
            f"decoder_type cnn cannot start from the state of encoder_type {opt.encoder_type}: set "
            "decoder_type: sd_rnn"
        )
    return faults


def _unmet_types(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Name types of ours that were asked for, where the checkpoint's win, in silence."""
    wanted = [
        (key, getattr(opt, key), getattr(model_opt, key, None))
        for key, ours in (("encoder_type", has_our_encoder), ("decoder_type", has_our_decoder))
        if ours(opt) and not ours(model_opt)
    ]
    return [
        f"{key} {new} would be ignored: the checkpoint was trained with {old}, and a checkpoint's "
        "options win. Add --override_opts to resume it with this run's options"
        for key, new, old in wanted
    ]


def command_line_faults(opt: Namespace) -> list[str]:
    """Find :func:`training_faults` of parsed options and of the checkpoint to resume."""
    if not getattr(opt, "train_from", ""):
        return training_faults(opt, opt)
    try:
        checkpoint = read(opt.train_from, mmap=True)
    except CheckpointError as error:
        # Stock's own business, unless one of our types was asked for.
        return [*option_faults(opt), f"train_from {error}"] if is_ours(opt) else []
    model_opt = opt if opt.override_opts else checkpoint["opt"]
    faults = training_faults(model_opt, opt)
    if opt.override_opts and (is_ours(opt) or is_ours(checkpoint["opt"])):
        faults += shape_faults(checkpoint, opt)
    return [*faults, *step_faults(checkpoint, opt)] if is_ours(model_opt) else faults


def trains_ours(opt: Namespace) -> bool:
    """Return whether a model of ours is trained: a checkpoint's types win over this run's."""
    if not opt.train_from or opt.override_opts:
        return is_ours(opt)
    try:
        return is_ours(read(opt.train_from, mmap=True)["opt"])
    except CheckpointError:
        return is_ours(opt)  # which is about to be said


def resume_file_faults(opt: Namespace) -> list[str]:
    """Return why the checkpoint to resume does not hold what training takes from it."""
    if not opt.train_from:
        return []
    try:
        checkpoint = read(opt.train_from, mmap=True)
    except CheckpointError as error:
        return [f"train_from {error}"]
    return optimizer_faults(checkpoint, opt)


def check_training(model_opt: Namespace, opt: Namespace) -> None:
    """Raise :class:`UnsupportedOptionsError` where :func:`training_faults` finds any."""
    faults = training_faults(model_opt, opt)
    if faults:
        raise UnsupportedOptionsError(faults)
