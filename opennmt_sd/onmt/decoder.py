"""The decoder type ``sd_rnn``, with and without input feed: stock's decoders, dropped by a plan."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from onmt.decoders.decoder import InputFeedRNNDecoder, RNNDecoderBase, StdRNNDecoder
from onmt.modules import Embeddings
from onmt.modules.sparse_activations import sparsemax
from onmt.utils.misc import sequence_mask
from torch import Tensor, nn

from opennmt_sd.nn import convert
from opennmt_sd.onmt.names import is_bidirectional
from opennmt_sd.seq2seq.attention import Source
from opennmt_sd.seq2seq.decoder import DecoderMixin, InputFeedDecoderMixin, StdDecoderMixin
from opennmt_sd.seq2seq.input_feed_rnn import State


class StructuredRNNDecoder(DecoderMixin, RNNDecoderBase):
    """What ``-decoder_type sd_rnn`` builds: one of the two classes below.

    Built by stock, so one seed gives stock's initial weights; parameters and their names are
    stock's, and evaluation is stock's own computation.
    """

    @classmethod
    def from_opt(cls, opt: Namespace, embeddings: Embeddings) -> StructuredRNNDecoder:
        opt.brnn = is_bidirectional(opt)
        kind = StructuredInputFeedRNNDecoder if opt.input_feed else StructuredStdRNNDecoder
        decoder = super(StructuredRNNDecoder, kind).from_opt(opt, embeddings)  # type: ignore[misc]
        decoder.embeddings.dropout_p = 0.0  # dropped where they enter the RNN, by the product
        decoder.take_over(opt)
        return decoder


class StructuredStdRNNDecoder(StdDecoderMixin, StructuredRNNDecoder, StdRNNDecoder):
    """Without input feed.

    Evaluation is in stock's order of calls. (Stock's own fails on a context gate: it views an RNN's
    output that is not contiguous.)
    """

    def _build_rnn(self, rnn_type: str, **kwargs: Any) -> nn.Module:
        rnn: Any = convert(super()._build_rnn(rnn_type, **kwargs))
        rnn.exact = False  # of packed rows alone, which are there in training only
        return rnn

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[State, Tensor, dict[str, Tensor]]:
        emb = self.embeddings(tgt)  # [B, T, E], raw
        if self.training:
            targets = self.order(emb, _words(tgt, self.embeddings.word_padding_idx))
            return self.train_pass(
                targets, emb, _source(enc_out, src_len),
                lambda queries: self.attn(queries, enc_out, src_len=src_len),
            )  # fmt: skip
        rnn_out, state = self.run_rnn(emb, self.state["hidden"])  # [B, T, H]
        dec_out, attns = rnn_out, {}
        if self.attentional:
            dec_out, attns["std"] = self.attn(rnn_out, enc_out, src_len=src_len)
        if self.context_gate is not None:
            rows = (x.flatten(0, 1) for x in (emb, rnn_out, dec_out))
            dec_out = self.context_gate(*rows).view(rnn_out.shape)
        return state, dec_out, attns


class StructuredInputFeedRNNDecoder(
    InputFeedDecoderMixin, StructuredRNNDecoder, InputFeedRNNDecoder
):
    """With input feed."""

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[State, Any, dict[str, Any]]:
        if not self.training:
            return super()._run_forward_pass(tgt, enc_out, src_len=src_len)
        # Coverage is summed, and its loss taken, past the end of a target too.
        padding = None if self._coverage else self.embeddings.word_padding_idx
        emb = self.embeddings(tgt)
        targets, source = self.order(emb, _words(tgt, padding)), _source(enc_out, src_len)
        state, out, attns = self.train_pass(targets, emb, source)
        attns = {name: weights.transpose(0, 1) for name, weights in attns.items()}  # as stock's
        if self._reuse_copy_attn:
            attns["copy"] = attns["std"]
        return state, out, attns


def _words(tgt: Tensor, padding: int | None) -> Tensor | None:
    """Return which words ``[B, T, features]`` there are, bool ``[B, T]``; padding None: all."""
    return None if padding is None else tgt[:, :, 0] != padding


def _source(enc_out: Tensor, src_len: Tensor | None) -> Source:
    """Return what attention reads: ``[B, S, H]``, of which lengths ``[B]`` are words."""
    S = enc_out.shape[1]
    padding = None if src_len is None else sequence_mask(src_len, max_len=S)
    # An encoder that gives fewer states than a source has words counts as whole.
    lengths = None if src_len is None else src_len.clamp(max=S)
    return Source(enc_out, padding, lengths, sparsemax)
