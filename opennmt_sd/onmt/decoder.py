"""The decoder type ``sd_rnn``, with and without input feed: stock's decoders, dropped by a plan.

Source of input feed: Luong et al., "Effective Approaches to Attention-based Neural Machine
Translation", 2015, section 3.3; of the dropout: Sarma et al., NeurIPS 2021, section 3.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from onmt.decoders.decoder import InputFeedRNNDecoder, RNNDecoderBase, StdRNNDecoder
from onmt.modules import Embeddings
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.nn import convert
from opennmt_sd.onmt.attention import SourceAttention
from opennmt_sd.onmt.loss import mark_kept
from opennmt_sd.onmt.names import is_bidirectional
from opennmt_sd.onmt.planned import Planned


class StructuredRNNDecoder(Planned, RNNDecoderBase):
    """What ``-decoder_type sd_rnn`` builds: one of the two classes below.

    Built by stock, so one seed gives stock's initial weights; parameters and their names are
    stock's, and evaluation is stock's own computation.
    """

    @classmethod
    def from_opt(cls, opt: Namespace, embeddings: Embeddings) -> StructuredRNNDecoder:
        opt.brnn = is_bidirectional(opt)
        kind = StructuredInputFeedRNNDecoder if opt.input_feed else StructuredStdRNNDecoder
        decoder = super(StructuredRNNDecoder, kind).from_opt(opt, embeddings)  # type: ignore[misc]
        decoder.take_over(opt)
        return decoder

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.keep_output: Keep | None = None
        dec_outs, attns = super().forward(*args, **kwargs)
        mark_kept(dec_outs, self.keep_output)
        return dec_outs, attns

    def draw_output(self, T: int, B: int) -> Keep | None:
        """What is kept of the output ``[T, B, H]``."""
        self.keep_output = self.draw("output", T, B, self.hidden_size)
        return self.keep_output


class StructuredStdRNNDecoder(StructuredRNNDecoder, StdRNNDecoder):
    """Without input feed: one LSTM over the whole target, attention over all its outputs.

    One forward for training and evaluation, in stock's order of calls. (Stock's own fails on a
    context gate: it views an LSTM output that is not contiguous.)
    """

    def _build_rnn(self, rnn_type: str, **kwargs: Any) -> torch.nn.Module:
        return convert(super()._build_rnn(rnn_type, **kwargs))

    def apply_plan(self) -> None:
        self.rnn.generator = self.generator
        self.rnn.dropout = self.plan.pattern("decoder")
        self.rnn.recurrent_dropout = self.plan.pattern("recurrent")

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor, dict[str, Tensor]]:
        emb = self.embeddings(tgt)  # [B, T, E], raw
        B, T, E = emb.shape
        keep = self.draw("tgt_embedding", T, B, E)
        rnn_out, state = self.rnn(emb, self.state["hidden"], input_keep=keep)  # [B, T, H]
        dec_out, attns = rnn_out, {}
        if self.attentional:
            dec_out, attns["std"] = self.attn(rnn_out, enc_out, src_len=src_len)
        if self.context_gate is not None:
            dropped = _apply(keep, emb.transpose(0, 1)).transpose(0, 1)
            rows = (dropped.reshape(B * T, E), rnn_out.flatten(0, 1), dec_out.flatten(0, 1))
            dec_out = self.context_gate(*rows).view(B, T, -1)
        keep = self.draw_output(T, B)
        return state, _apply(keep, dec_out.transpose(0, 1)).transpose(0, 1), attns


class StructuredInputFeedRNNDecoder(StructuredRNNDecoder, InputFeedRNNDecoder):
    """With input feed: each step reads the attended output of the step before."""

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], list[Tensor], dict[str, list[Tensor]]]:
        if not self.training:
            return super()._run_forward_pass(tgt, enc_out, src_len=src_len)
        emb = self.embeddings(tgt).transpose(0, 1)  # [T, B, E], raw
        T, B, E = emb.shape
        keep_emb = self.draw("tgt_embedding", T, B, E)
        keep_out = self.draw_output(T, B)
        # A step is fed what the step before put out, which is masked and scaled already.
        keep_fed = None if keep_out is None else keep_out.shifted(T).rescaled(1.0)
        stack = _Stack(self, emb, keep_emb, keep_fed)
        gated_emb = None if self.context_gate is None else _apply(keep_emb, emb)
        drop = _Dropper(keep_out, T, emb.device)
        if self.attentional:
            attend = SourceAttention(self.attn, enc_out, src_len)

        feed = self.state["input_feed"].squeeze(0)
        # An encoder with more layers hands over more states; as in stock, the first ones count.
        h, c = (list(states[: self.num_layers].unbind(0)) for states in self.state["hidden"])
        coverage = self.state["coverage"]
        coverage = None if coverage is None else coverage.squeeze(0)
        dec_outs: list[Tensor] = []
        attns: dict[str, list[Tensor]] = {"std": []} if self.attentional else {}
        if self._coverage:
            attns["coverage"] = []

        for t in range(T):
            rnn_out = stack.step(t, feed, h, c)
            dec_out = rnn_out
            if self.attentional:
                dec_out, p_attn = attend(rnn_out)
                attns["std"].append(p_attn)
            if gated_emb is not None:
                dec_in = torch.cat([gated_emb[t], feed], 1)
                dec_out = self.context_gate(dec_in, rnn_out, dec_out)
            feed = drop(dec_out, t)
            dec_outs.append(feed)
            if self._coverage:
                coverage = p_attn if coverage is None else p_attn + coverage
                attns["coverage"].append(coverage)

        return (torch.stack(h), torch.stack(c)), dec_outs, attns


class _Stack:
    """The decoder's LSTM layers, one step at a time, for one forward and backward pass.

    The embeddings' part of the first layer's gates does not wait for the feed: it is one product
    over all steps.
    """

    def __init__(
        self,
        decoder: StructuredInputFeedRNNDecoder,
        emb: Tensor,
        keep_emb: Keep | None,
        keep_fed: Keep | None,
    ) -> None:
        T, B, E = emb.shape
        H = decoder.hidden_size
        layers = list(decoder.rnn.layers)
        biases = [layer.bias_ih + layer.bias_hh for layer in layers]
        w_emb, w_feed = layers[0].weight_ih.split([E, H], 1)
        self.gates_emb = ops.masked_linear(emb, keep_emb, w_emb, biases[0])  # [T, B, 4H]
        upper = [ops.prepare(layer.weight_ih, b) for layer, b in zip(layers[1:], biases[1:])]
        self.inputs = [ops.prepare(w_feed), *upper]
        self.keep_inputs = [keep_fed, *(decoder.draw("decoder", T, B, H) for _ in upper)]
        self.states = [ops.prepare(layer.weight_hh) for layer in layers]
        self.keep_states = [decoder.draw("recurrent", T, B, H) for _ in layers]

    def step(self, t: int, feed: Tensor, h: list[Tensor], c: list[Tensor]) -> Tensor:
        """Step t: updates h and c, one ``[B, H]`` a layer, in place; gives the top one's h."""
        x = feed
        for k in range(len(h)):
            gates = ops.masked_linear_step(self.inputs[k], x, self.keep_inputs[k], t)
            gates = gates + ops.masked_linear_step(self.states[k], h[k], self.keep_states[k], t)
            if k == 0:
                gates = gates + self.gates_emb[t]
            h[k], c[k] = ops.lstm_gates(gates, c[k])
            x = h[k]
        return x


class _Dropper:
    """Applies keep sets a step at a time, from one mask for the sequence."""

    def __init__(self, keep: Keep | None, T: int, device: torch.device) -> None:
        self.keep = keep
        self.mask = None if keep is None else keep.mask().expand(T, -1, -1).to(device)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        if self.keep is None or self.mask is None:
            return x
        return torch.where(self.mask[t], x * self.keep.scale, x.new_zeros(()))


def _apply(keep: Keep | None, x: Tensor) -> Tensor:
    return x if keep is None else keep.apply(x)
