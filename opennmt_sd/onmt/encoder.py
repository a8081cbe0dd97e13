"""The encoder types ``sd_rnn`` and ``sd_brnn``: stock's RNN encoder on one of our RNNs."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.modules import Embeddings

from opennmt_sd.nn import convert
from opennmt_sd.onmt.dropout_mixin import DropoutMixin
from opennmt_sd.onmt.names import is_bidirectional


class StructuredRNNEncoder(DropoutMixin, RNNEncoder):
    """Stock's RNN encoder; its RNN drops by the plan and skips what is dropped.

    Built by stock and converted in place, so one seed gives stock's initial weights; parameters
    and their names are stock's, and evaluation is stock's own computation.
    """

    @classmethod
    def from_opt(cls, opt: Namespace, embeddings: Embeddings) -> StructuredRNNEncoder:
        # Stock works this out from the literal name "brnn"; the decoder reads it afterwards.
        opt.brnn = is_bidirectional(opt)
        encoder = super().from_opt(opt, embeddings)
        convert(encoder.rnn)
        encoder.take_over(opt)
        return encoder

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # In training, packed rows take the quicker kernels where nothing is dropped, too.
        self.rnn.exact = not self.training
        return super().forward(*args, **kwargs)

    def apply_plan(self) -> None:
        self.rnn.generator = self.generator
        self.rnn.input_dropout = self.plan.pattern("src_embedding")
        self.rnn.dropout = self.plan.pattern("encoder")
        self.rnn.recurrent_dropout = self.plan.pattern("recurrent")
