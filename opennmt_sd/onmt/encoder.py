"""The encoder types ``sd_rnn`` and ``sd_brnn``: stock's RNN encoder on one of our RNNs."""

from __future__ import annotations

from argparse import Namespace

from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.modules import Embeddings

from opennmt_sd.nn import convert
from opennmt_sd.onmt.names import is_bidirectional
from opennmt_sd.seq2seq.encoder import EncoderMixin


class StructuredRNNEncoder(EncoderMixin, RNNEncoder):
    """Stock's RNN encoder; its RNN drops by the plan and skips what is dropped.

    Built by stock and converted in place, so one seed gives stock's initial weights; parameters
    and their names are stock's, and evaluation is stock's own computation.
    """

    @classmethod
    def from_opt(cls, opt: Namespace, embeddings: Embeddings) -> StructuredRNNEncoder:
        # Stock works this out from the literal name "brnn"; the decoder reads it afterwards.
        opt.brnn = is_bidirectional(opt)
        encoder = super().from_opt(opt, embeddings)
        encoder.embeddings.dropout_p = 0.0  # dropped where they enter the RNN, by the product
        convert(encoder.rnn)
        encoder.take_over(opt)
        return encoder
