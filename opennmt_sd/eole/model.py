"""A translator that Eole has built, with its dropout taken over."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from eole.decoders.rnn_decoder import InputFeedRNNDecoder, StdRNNDecoder
from eole.models.model import EncoderDecoderModel

from opennmt_sd.eole.decoder import StructuredInputFeedRNNDecoder, StructuredStdRNNDecoder
from opennmt_sd.eole.encoder import StructuredRNNEncoder
from opennmt_sd.nn import convert

DECODERS = {
    StdRNNDecoder: StructuredStdRNNDecoder,
    InputFeedRNNDecoder: StructuredInputFeedRNNDecoder,
}


class StructuredModel(EncoderDecoderModel):
    """Stock's model: what it drops of embeddings, its RNNs drop as they read them.

    Parameters, their names and their values are stock's, and evaluation is stock's own computation.
    """

    @classmethod
    def take_over(cls, model: Any, opt: Namespace) -> None:
        """Make a model of stock's one of these, in place.

        Args:
            model: with an RNN encoder and decoder.
            opt: the options of a plan, and ``seed``.
        """
        encoder, decoder = model.encoder, model.decoder
        for embeddings in (model.src_emb, model.tgt_emb):
            embeddings.update_dropout(0.0)
        model.__class__ = cls
        encoder.__class__ = StructuredRNNEncoder
        decoder.__class__ = DECODERS[type(decoder)]
        convert(encoder.rnn)
        if isinstance(decoder, StdRNNDecoder):
            convert(decoder.rnn)
            decoder.rnn.exact = False  # of packed rows alone, which are there in training only
        for part in (encoder, decoder):
            part.take_over(opt)

    def update_dropout(self, dropout: float, attention_dropout: float | None = None) -> None:
        """Follow a step of ``dropout_steps``."""
        for part in (self.encoder, self.decoder):
            part.update_dropout(dropout, attention_dropout)
