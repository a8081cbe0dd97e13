"""The type names the plugin adds to OpenNMT-py, and the stock types they stand for."""

from __future__ import annotations

from argparse import Namespace

# Keys and shapes of the weights are those of the stock type.
ENCODERS = {"sd_rnn": "rnn", "sd_brnn": "brnn"}
DECODERS = {"sd_rnn": "rnn"}


def has_our_encoder(opt: Namespace) -> bool:
    return getattr(opt, "encoder_type", None) in ENCODERS


def has_our_decoder(opt: Namespace) -> bool:
    return getattr(opt, "decoder_type", None) in DECODERS


def is_ours(opt: Namespace) -> bool:
    """Say whether the model of these options has an encoder or a decoder of the plugin."""
    return has_our_encoder(opt) or has_our_decoder(opt)


def is_bidirectional(opt: Namespace) -> bool:
    """Say whether the encoder reads both ways.

    Stock sets ``opt.brnn`` for the literal name ``brnn`` only. So the plugin's encoder, which is
    built first and from the same options, sets ``opt.brnn`` from this; then a stock decoder
    behind ``sd_brnn`` and the plugin's decoder behind ``brnn`` both work.
    """
    return getattr(opt, "encoder_type", None) in ("brnn", "sd_brnn")
