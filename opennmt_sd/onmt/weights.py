"""Which weights a model's options ask for, and where a checkpoint has others."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.names import DECODERS, ENCODERS, has_our_encoder, is_bidirectional

RNN_ENCODERS = ("rnn", "brnn", *ENCODERS)
RNN_DECODERS = ("rnn", *DECODERS)
WITHOUT_LAYERS = ("mean", "ggnn")  # encoders

# Of both sides together, and each side's own.
SIZES = {
    "hidden_size": ("enc_hid_size", "dec_hid_size"),
    "word_vec_size": ("src_word_vec_size", "tgt_word_vec_size"),
    "layers": ("enc_layers", "dec_layers"),
}
TIED = ("share_embeddings", "share_decoder_embeddings")
OF_DECODER = ("input_feed", "global_attention", "context_gate", "coverage_attn", "copy_attn")


def either(opt: Namespace, both: str, own: str) -> int:
    """Return the value set for both sides together, else a side's own."""
    value: int = getattr(opt, both)
    return value if value > 0 else getattr(opt, own)


def sizes(opt: Namespace) -> dict[str, list[int]]:
    """Return the sizes of :data:`SIZES` as they hold for the encoder and the decoder."""
    return {both: [either(opt, both, own) for own in sides] for both, sides in SIZES.items()}


def same_gates(one: Namespace, other: Namespace) -> bool:
    """Return whether weights of one's context gate are of the other's."""
    both = "context_gate" in _parts(one) and "context_gate" in _parts(other)
    return both and _has(one, "context_gate") == _has(other, "context_gate")


def same_types(one: Namespace, other: Namespace) -> bool:
    """Return whether weights of one's types are of the other's, ours or stock's."""
    return _types(one) == _types(other)


def shape_faults(checkpoint: Mapping[str, Any], opt: Namespace) -> list[str]:
    """Return where the weights of a checkpoint are not those of this run's model, one text each.

    Of a weight that is too large, stock's ``load_state_dict`` takes a corner, without a word.
    """
    old = {**vars(opt), **vars(checkpoint["opt"])}  # old ones do not hold every option
    return [*_shape_faults(Namespace(**old), opt)]


def loss_faults(model_opt: Namespace, opt: Namespace) -> Iterator[str]:
    """Give what this run's loss needs of a checkpoint's model that has it not. Stock ends in a
    traceback, at the first batch."""
    copies = bool(getattr(model_opt, "copy_attn", False))
    if bool(opt.copy_attn) is not copies:
        yield (
            f"copy_attn {opt.copy_attn} is not the checkpoint's: set copy_attn: {_in_yaml(copies)}"
        )
    if opt.lambda_coverage and not getattr(model_opt, "coverage_attn", False):
        yield (
            f"lambda_coverage {opt.lambda_coverage} needs coverage_attn, which the checkpoint's "
            "model does not have: set lambda_coverage: 0"
        )


def kept_text(key: str, model_opt: Namespace, opt: Namespace) -> str:
    """Return what a resumed run has of an option, and what it asks for."""
    return f"{key} {getattr(model_opt, key)} (this run: {getattr(opt, key)})"


def kept_weights(model_opt: Namespace, opt: Namespace) -> list[str]:
    """Return what a resumed run asks for that a checkpoint's weights do not have: ``"layers 2 (this
    run: 3)"``, one text each.

    A run is taken at its word, but for sizes that it does not set and stock's defaults give.
    """
    kept = []
    if not same_types(model_opt, opt):
        kept += [kept_text(key, model_opt, opt) for key in ("encoder_type", "decoder_type")
                 if getattr(model_opt, key) != getattr(opt, key)]  # fmt: skip
    kept += [kept_text(key, model_opt, opt) for key in (*_parts(model_opt), *TIED)
             if _has(model_opt, key) != _has(opt, key)]  # fmt: skip
    has, asked, usual = sizes(model_opt), sizes(opt), sizes(_defaults())
    for both in SIZES:
        is_set = getattr(opt, both) > 0 or asked[both] != usual[both]
        unread = both == "layers" and model_opt.encoder_type in WITHOUT_LAYERS
        if is_set and has[both][unread:] != asked[both][unread:]:
            old, new = (_joined(of[both][unread:]) for of in (has, asked))
            kept.append(f"{both} {old} (this run: {new})")
    return kept


def _in_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(values: list[int]) -> str:
    return " and ".join(map(str, dict.fromkeys(values)))


def _defaults() -> Any:
    parser = import_module("onmt.utils.parse").ArgumentParser
    return parser.defaults(import_module("onmt.opts").model_opts)


def _types(opt: Namespace) -> tuple[object, object]:
    """Return what types are weights of: of RNNs the directions."""
    encoder, decoder = opt.encoder_type, opt.decoder_type
    return (
        is_bidirectional(opt) if encoder in RNN_ENCODERS else encoder,
        "rnn" if decoder in RNN_DECODERS else decoder,
    )


def _parts(opt: Namespace) -> list[str]:
    """Return which options, sizes apart, say what weights there are: those that its types read."""
    encodes, decodes = opt.encoder_type in RNN_ENCODERS, opt.decoder_type in RNN_DECODERS
    return ["rnn_type"] * (encodes or decodes) + ["bridge"] * encodes + [*OF_DECODER] * decodes


def _has(opt: Namespace, key: str) -> object:
    """Return what of an option the weights show."""
    value = getattr(opt, key)
    return value is not None if key == "context_gate" else value  # all kinds of gates have the same


def _shape_faults(old: Namespace, opt: Namespace) -> Iterator[str]:
    types = old.encoder_type, opt.encoder_type
    if {*types} <= {*RNN_ENCODERS} and is_bidirectional(old) is not is_bidirectional(opt):
        yield (
            f"encoder_type {types[1]} is not the checkpoint's, which reads in other directions: set"
            f" encoder_type: {'sd_' * has_our_encoder(opt)}{'b' * is_bidirectional(old)}rnn"
        )
    keys = [key for key in _parts(opt) if key in _parts(old)]
    if opt.update_vocab:  # then stock draws what a checkpoint lacks
        keys = [key for key in keys if key == "rnn_type"]
    for key in keys:
        new, value = getattr(opt, key), getattr(old, key)
        if _has(opt, key) != _has(old, key):
            remedy = f"remove {key}" if value is None else f"set {key}: {_in_yaml(value)}"
            yield f"{key} {new} is not the checkpoint's: {remedy}"
    known = sizes(old)
    for both, new in sizes(opt).items():
        if new == known[both]:
            continue
        wanted = {both: known[both][0]}
        if known[both][0] != known[both][1]:
            wanted = {both: -1, **dict(zip(SIZES[both], known[both]))}
        yield (
            f"{both} {_joined(new)} is not the checkpoint's: set "
            + ", ".join(f"{key}: {size}" for key, size in wanted.items())
        )
