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
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import Keep
from opennmt_sd.nn import convert
from opennmt_sd.onmt.attention import SourceAttention, attend_all
from opennmt_sd.onmt.dropout_mixin import DropoutMixin
from opennmt_sd.onmt.input_feed_gru import InputFeedGRU
from opennmt_sd.onmt.input_feed_lstm import InputFeedLSTM
from opennmt_sd.onmt.input_feed_rnn import InputFeedRNN, State
from opennmt_sd.onmt.loss import mark_kept
from opennmt_sd.onmt.names import is_bidirectional
from opennmt_sd.onmt.sorted_targets import SortedTargets


class StructuredRNNDecoder(DropoutMixin, RNNDecoderBase):
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
        """Draw what is kept of the output ``[T, B, H]``."""
        self.keep_output = self.draw("output", T, B, self.hidden_size)
        return self.keep_output


class StructuredStdRNNDecoder(StructuredRNNDecoder, StdRNNDecoder):
    """Without input feed: one RNN over the whole target, attention over all its outputs.

    In training nothing is computed past the end of a target, and the output there is zero.
    Evaluation is in stock's order of calls. (Stock's own fails on a context gate: it views an RNN's
    output that is not contiguous.)
    """

    def _build_rnn(self, rnn_type: str, **kwargs: Any) -> nn.Module:
        rnn: Any = convert(super()._build_rnn(rnn_type, **kwargs))
        rnn.exact = False  # of packed rows alone, which are there in training only
        return rnn

    def apply_plan(self) -> None:
        self.rnn.generator = self.generator
        self.rnn.dropout = self.plan.pattern("decoder")
        self.rnn.recurrent_dropout = self.plan.pattern("recurrent")

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[State, Tensor, dict[str, Tensor]]:
        emb = self.embeddings(tgt)  # [B, T, E], raw
        if self.training:
            return self._train_forward_pass(tgt, emb, enc_out, src_len)
        rnn_out, state = self._run(emb, self.state["hidden"])  # [B, T, H]
        dec_out, attns = rnn_out, {}
        if self.attentional:
            dec_out, attns["std"] = self.attn(rnn_out, enc_out, src_len=src_len)
        if self.context_gate is not None:
            rows = (x.flatten(0, 1) for x in (emb, rnn_out, dec_out))
            dec_out = self.context_gate(*rows).view(rnn_out.shape)
        return state, dec_out, attns

    def _train_forward_pass(
        self, tgt: Tensor, emb: Tensor, enc_out: Tensor, src_len: Tensor | None
    ) -> tuple[State, Tensor, dict[str, Tensor]]:
        B, T, E = emb.shape
        targets = SortedTargets(tgt, self.embeddings.word_padding_idx)
        rows, sizes = targets.pack(emb), targets.sizes  # [R, E]
        keep = self.draw("tgt_embedding", T, B, E)
        state = tuple(targets.sort(part, 1) for part in self.state["hidden"])
        if ops.has_kernels(emb):
            packed, state = self._run(PackedSequence(rows, sizes), state, input_keep=keep)
            rnn_out = packed.data  # [R, H]
        else:  # torch would take packed rows step by step
            rnn_out, state = self._run(targets.sort(emb), state, input_keep=keep)
            rnn_out = targets.pack(targets.unsort(rnn_out))
        out, attns = rnn_out, {}
        if self.attentional:
            out, attns["std"] = attend_all(self.attn, targets, rnn_out, enc_out, src_len)
        if self.context_gate is not None:
            out = self.context_gate(_apply(keep, rows, sizes), rnn_out, out)
        out = targets.unpack(_apply(self.draw_output(T, B), out, sizes))
        return tuple(targets.unsort(part, 1) for part in state), out, attns

    def _run(self, x: Any, state: State, **given: Any) -> tuple[Any, State]:
        """Run the RNN on a state as stock's decoders hold it: a tuple, whatever the cell."""
        if isinstance(self.rnn, nn.GRU):
            out, h = self.rnn(x, state[0], **given)
            return out, (h,)
        return self.rnn(x, state, **given)


class StructuredInputFeedRNNDecoder(StructuredRNNDecoder, InputFeedRNNDecoder):
    """With input feed: each step reads the attended output of the step before.

    In training a step computes only the sentences that go on; past the end of its target, a
    sentence's output is zero.
    """

    def _run_forward_pass(
        self, tgt: Tensor, enc_out: Tensor, src_len: Tensor | None = None
    ) -> tuple[State, Any, dict[str, Any]]:
        if not self.training:
            return super()._run_forward_pass(tgt, enc_out, src_len=src_len)
        # Coverage is summed, and its loss taken, past the end of a target too.
        padding = None if self._coverage else self.embeddings.word_padding_idx
        targets = SortedTargets(tgt, padding)
        emb = targets.pack(self.embeddings(tgt))  # [R, E], raw
        B, T = tgt.shape[:2]
        keep_emb = self.draw("tgt_embedding", T, B, emb.shape[1])
        keep_out = self.draw_output(T, B)
        rnn = self._begin(targets, emb, keep_emb, keep_out)
        if self.context_gate is not None:
            gated_emb = targets.steps(_apply(keep_emb, emb, targets.sizes))  # T of [n, E]
        source, lengths = targets.sort(enc_out), None if src_len is None else targets.sort(src_len)
        attend, attend_to_copy = (
            None if attn is None else SourceAttention(attn, source, lengths)
            for attn in (self.attn, self.copy_attn)
        )
        drop = _Dropper(keep_out, T, emb.device)

        feed = targets.sort(self.state["input_feed"].squeeze(0))
        coverage = self.state["coverage"]
        coverage = None if coverage is None else coverage.squeeze(0)
        outs: list[Tensor] = []
        there = {"std": attend, "copy": attend_to_copy, "coverage": self._coverage or None}
        attns: dict[str, list[Tensor]] = {k: [] for k, part in there.items() if part is not None}

        for t, n in enumerate(targets.sizes.tolist()):
            feed = feed[:n]
            rnn_out = out = rnn.step(t, feed)  # [n, H]
            if attend is not None:
                out, p_attn = attend(rnn_out)
                attns["std"].append(p_attn)
            if self.context_gate is not None:
                out = self.context_gate(torch.cat([gated_emb[t], feed], 1), rnn_out, out)
            feed = drop(out, t)
            outs.append(feed)
            if attend_to_copy is not None:
                attns["copy"].append(attend_to_copy.read(feed)[1])
            if self._coverage:
                coverage = p_attn if coverage is None else p_attn + coverage
                attns["coverage"].append(coverage)

        state = tuple(targets.unsort(part, 1) for part in rnn.final())
        # Attention is time first here, as stock's.
        weights = {
            name: targets.unpack(torch.cat(steps)).transpose(0, 1) for name, steps in attns.items()
        }
        if self._reuse_copy_attn:
            weights["copy"] = weights["std"]
        return state, targets.unpack(torch.cat(outs)), weights

    def _begin(
        self, targets: SortedTargets, emb: Tensor, keep_emb: Keep | None, keep_out: Keep | None
    ) -> InputFeedRNN:
        """Return the layers before the first step, and draw what each of them keeps.

        Args:
            targets, emb: of the batch, and its packed embeddings ``[R, E]``, raw.
            keep_emb, keep_out: what is kept of those, and of the decoder's output.
        """
        B, T, H, layers = targets.B, targets.T, self.hidden_size, list(self.rnn.layers)
        # A step is fed what the step before put out, which is masked and scaled already.
        keep_fed = None if keep_out is None else keep_out.shifted(T).rescaled(1.0)
        kind = InputFeedGRU if isinstance(layers[0], nn.GRUCell) else InputFeedLSTM
        # As in stock, the first ones count: an encoder with more layers hands over more states, and
        # `mean` hands an h and a c to any cell.
        state = self.state["hidden"][: kind.parts]
        state = tuple(targets.sort(part[: len(layers)], 1) for part in state)
        return kind(
            layers, targets, emb, keep_emb,
            [keep_fed, *(self.draw("decoder", T, B, H) for _ in layers[1:])],
            [self.draw("recurrent", T, B, H) for _ in layers], state,
        )  # fmt: skip


class _Dropper:
    """Applies keep sets a step at a time, from one mask for the sequence."""

    def __init__(self, keep: Keep | None, T: int, device: torch.device) -> None:
        self.keep = keep
        self.mask = None if keep is None else keep.mask().expand(T, -1, -1).to(device)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        if self.keep is None or self.mask is None:
            return x
        return torch.where(self.mask[t, : len(x)], x * self.keep.scale, x.new_zeros(()))


def _apply(keep: Keep | None, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
    return x if keep is None else keep.apply(x, batch_sizes)
