"""Eole's RNN encoder on one of our RNNs."""

from __future__ import annotations

from eole.encoders.rnn_encoder import RNNEncoder

from opennmt_sd.seq2seq.encoder import EncoderMixin


class StructuredRNNEncoder(EncoderMixin, RNNEncoder):
    """Stock's RNN encoder; its RNN drops by the plan and skips what is dropped.

    As in stock it reads padding too: a model is evaluated as it was trained.
    """
