"""What cannot work with structured dropout is refused before data are read, all faults at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opennmt_sd.eole.options import options_of
from opennmt_sd.seq2seq.options import unknown_key_faults, value_faults
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

ENCODERS, DECODERS = ("rnn", "brnn"), ("rnn",)


def check_training(config: Any) -> None:
    """Raise :class:`UnsupportedOptionsError` where :func:`training_faults` finds any."""
    faults = training_faults(config)
    if faults:
        raise UnsupportedOptionsError(faults)


def training_faults(config: Any) -> list[str]:
    """Return why a training cannot be, one text each; empty where it can, or is stock's own.

    Args:
        config: Eole's ``TrainConfig``, with what a checkpoint says where one is resumed.
    """
    options = options_of(config)
    if options is None:
        return []
    return [
        *unknown_key_faults(options),
        *value_faults(options, config.training.dropout),
        *_type_faults(config.model),
        *_run_faults(config),
        *_resume_faults(config),
    ]


def _type_faults(model: Any) -> Iterator[str]:
    encoder = getattr(model.encoder, "encoder_type", None)
    decoder = getattr(model.decoder, "decoder_type", None)
    if encoder not in ENCODERS:
        yield (
            f"encoder_type {encoder} has no structured dropout: set encoder: {{encoder_type: "
            "brnn} (or rnn), or remove the sd_* options"
        )
    if decoder not in DECODERS:
        yield (
            f"decoder_type {decoder} has no structured dropout: set decoder: {{decoder_type: "
            "rnn}, or remove the sd_* options"
        )
    if encoder in ENCODERS and decoder in DECODERS:
        yield from _part_faults(model)


def _part_faults(model: Any) -> Iterator[str]:
    """Find parts of an RNN model that do not fit each other. Stock fails on each of these with a
    traceback, most of them on the first batch."""
    encoder, decoder = model.encoder, model.decoder
    both_ways = encoder.encoder_type == "brnn"
    if both_ways and encoder.hidden_size % 2:
        yield (
            f"hidden_size {encoder.hidden_size} must be even with encoder_type brnn: each "
            "direction has half of it"
        )
    if both_ways and encoder.bridge:
        yield (
            "bridge: Eole builds it for one direction, and fails with encoder_type brnn: remove "
            "bridge, or set encoder_type: rnn"
        )
    if (encoder.rnn_type, decoder.rnn_type) == ("GRU", "LSTM"):
        yield (
            "rnn_type GRU of the encoder gives no cell state for rnn_type LSTM of the decoder: "
            "give both the same"
        )
    more = decoder.layers > encoder.layers
    if encoder.layers != decoder.layers and (more or not model.input_feed):
        yield (
            f"layers {encoder.layers} of the encoder and {decoder.layers} of the decoder: the "
            "decoder's layers start from the encoder's, one from each: give both the same number"
        )
    for part in ("coverage_attn", "context_gate"):
        if getattr(decoder, part) and not model.input_feed:
            yield f"{part} needs input_feed: 1 (it is {model.input_feed})"
    if decoder.coverage_attn and decoder.global_attention in (None, "none"):
        yield "coverage_attn needs attention: set global_attention: general"
    functions = {
        "generator_function": model.generator_function,
        "global_attention_function": decoder.global_attention_function,
    }
    for key, value in functions.items():
        if value == "sparsemax":
            yield f"{key} sparsemax: Eole fails on it on the first batch: set {key}: softmax"


def _run_faults(config: Any) -> Iterator[str]:
    training = config.training
    if training.optim == "sparseadam":
        yield (
            "optim sparseadam: Eole fails on it in the first update of such a model: set optim: "
            "adam"
        )
    if training.torch_compile:
        yield "torch_compile is not for structured dropout: remove it"
    if training.rl_algorithm is not None:
        yield (
            f"rl_algorithm {training.rl_algorithm} is not for structured dropout: resume the "
            "model for it without this plugin (OPENNMT_SD_AUTOLOAD=0)"
        )
    if training.parallel_mode == "tensor_parallel" and training.world_size > 1:
        yield (
            "parallel_mode tensor_parallel splits transformers alone: set parallel_mode: "
            "data_parallel"
        )


def _resume_faults(config: Any) -> Iterator[str]:
    """Find ways to go on from a checkpoint on which stock fails as it reads that."""
    model, training = config.model, config.training
    if not training.train_from:
        return
    if training.reset_optim == "keep_states":
        yield (
            "reset_optim keep_states: Eole fails on it as it reads the checkpoint: set "
            "reset_optim: none, which keeps the optimizer's options too, or all, which keeps "
            "nothing of it"
        )
    if not training.update_vocab:
        return
    tied = model.share_decoder_embeddings and not model.share_embeddings
    if tied or not model.generator_bias:
        what = "share_decoder_embeddings" if tied else "generator_bias: false"
        yield (
            f"update_vocab: Eole fails on it where the checkpoint's model has {what}: remove "
            "update_vocab, or train that model anew"
        )
