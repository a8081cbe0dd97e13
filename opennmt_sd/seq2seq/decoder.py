"""What RNN decoders of every toolkit do in training, with and without input feed.

Mixins for a toolkit's decoders, whose attributes they read: ``rnn``, ``attn``, ``context_gate``,
``state``, ``hidden_size``. Evaluation stays the toolkit's own.

Source of input feed: Luong et al., "Effective Approaches to Attention-based Neural Machine
Translation", 2015, section 3.3; of the dropout: Sarma et al., NeurIPS 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from opennmt_sd import ops
from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.dropout.staggered import StaggeredSets
from opennmt_sd.dropout.steps import Steps
from opennmt_sd.seq2seq.attention import Source, SourceAttention, attend_all
from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin
from opennmt_sd.seq2seq.input_feed_gru import InputFeedGRU
from opennmt_sd.seq2seq.input_feed_lstm import InputFeedLSTM
from opennmt_sd.seq2seq.input_feed_rnn import InputFeedRNN, State
from opennmt_sd.seq2seq.loss import mark_kept
from opennmt_sd.seq2seq.sorted_targets import SortedTargets

# The state after the targets, the output [B, T, H], and attention weights [B, T, S] by their names.
Pass = tuple[State, Tensor, dict[str, Tensor]]


class DecoderMixin(DropoutMixin):
    """Share what both kinds do: order the targets, drop the output and let it say so."""

    rnn: Any
    attn: Any
    context_gate: Any
    state: dict[str, Any]
    hidden_size: int

    def order(self, emb: Tensor, words: Tensor | None) -> SortedTargets:
        """Return the targets without what lies past their end; but whole where a GPU would have to
        be waited for to know where that is. Then their order matters to masks of each sample's own
        alone.

        Args:
            emb: their embeddings ``[B, T, E]``.
            words: where there is one, bool ``[B, T]``; None: all.
        """
        B, T, _ = emb.shape
        if ops.reads_back(emb):
            return SortedTargets(B, T, words)
        shared = self.plan.pattern("output").structured
        return SortedTargets(B, T, None if shared else words, whole=True)

    def draw_output(self, targets: SortedTargets, emb: Tensor) -> Keep | None:
        """Draw what is kept of the output ``[T, B, H]``, on the device of the embeddings: of the
        batch in its own order, where samples differ by a rule."""
        T, B, H = targets.T, targets.B, self.hidden_size
        if not self.plan.staggered:
            return self.draw("output", emb, T, B, H)
        sets = self.draw("output", emb, StaggeredSets.count(T, B), B, H)
        return None if sets is None else StaggeredSets.of(sets, T, B, emb.device)


class StdDecoderMixin(DecoderMixin):
    """Decode without input feed: one RNN over the whole target, attention over all its outputs.

    Nothing is computed past the end of a target, and the output there is zero; but on a GPU.
    """

    def apply_plan(self) -> None:
        self.rnn.generator = self.generator
        self.rnn.dropout = self.plan.pattern("decoder")
        self.rnn.recurrent_dropout = self.plan.pattern("recurrent")

    def train_pass(
        self,
        targets: SortedTargets,
        emb: Tensor,
        source: Source,
        whole: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> Pass:
        """Decode a batch.

        Args:
            targets: which words are there.
            emb: their embeddings ``[B, T, E]``, raw.
            source: what attention reads.
            whole: see :func:`attend_all`.
        """
        B, T, E = emb.shape
        rows, sizes = targets.pack(emb), targets.sizes  # [R, E]
        keep = self.draw("tgt_embedding", emb, T, B, E)
        state = tuple(targets.sort(part, 1) for part in self.state["hidden"])
        if ops.has_kernels(emb):
            packed, state = self.run_rnn(PackedSequence(rows, sizes), state, input_keep=keep)
            rnn_out = packed.data  # [R, H]
        else:  # torch would take packed rows step by step
            rnn_out, state = self.run_rnn(targets.sort(emb), state, input_keep=keep)
            rnn_out = targets.pack(targets.unsort(rnn_out))
        out, attns = rnn_out, {}
        if self.attn is not None:
            out, attns["std"] = attend_all(self.attn, targets, rnn_out, source, whole)
        if self.context_gate is not None:
            out = self.context_gate(_apply(keep, rows, sizes), rnn_out, out)
        keep_out = self.draw_output(targets, emb)
        out = targets.unpack(_drop_output(keep_out, out, targets))
        mark_kept(out, keep_out)
        return tuple(targets.unsort(part, 1) for part in state), out, attns

    def run_rnn(self, x: Any, state: State, **given: Any) -> tuple[Any, State]:
        """Run the RNN on a state as the toolkits' decoders hold it: a tuple, whatever the cell."""
        if isinstance(self.rnn, nn.GRU):
            out, h = self.rnn(x, state[0], **given)
            return out, (h,)
        return self.rnn(x, state, **given)


class InputFeedDecoderMixin(DecoderMixin):
    """Decode with input feed: each step reads the attended output of the step before.

    A step computes only the sentences that go on; past the end of its target, a sentence's output
    is zero; but on a GPU.
    """

    _coverage: bool

    def train_pass(self, targets: SortedTargets, emb: Tensor, source: Source) -> Pass:
        """Decode a batch.

        Args:
            targets: which words are there.
            emb: their embeddings ``[B, T, E]``, raw.
            source: what attention reads.
        """
        B, T, E = emb.shape
        emb = targets.pack(emb)  # [R, E]
        keep_emb = self.draw("tgt_embedding", emb, T, B, E)
        keep_out = keep_fed = self.draw_output(targets, emb)
        staggered = self.plan.staggered
        if staggered:  # sets by step for what is fed: its product, step by step, shrinks
            keep_fed = self.draw("output", emb, T, B, self.hidden_size)
        rnn = self._begin(targets, emb, keep_emb, keep_fed)
        if self.context_gate is not None:
            gated_emb = targets.steps(_apply(keep_emb, emb, targets.sizes))  # T of [n, E]
        source = source.sorted(targets)
        attend, attend_to_copy = (
            None if attn is None else SourceAttention(attn, source)
            for attn in (self.attn, getattr(self, "copy_attn", None))
        )
        drop = None if keep_fed is None else Steps(keep_fed, emb)

        feed = targets.sort(self.state["input_feed"].squeeze(0))
        coverage = self.state["coverage"]
        coverage = None if coverage is None else coverage.squeeze(0)
        outs: list[Tensor] = []  # dropped; raw where they are dropped otherwise than what is fed
        parts = {"std": attend, "copy": attend_to_copy, "coverage": self._coverage or None}
        attns: dict[str, list[Tensor]] = {k: [] for k, part in parts.items() if part is not None}

        for t, n in enumerate(targets.sizes.tolist()):
            feed = feed[:n]
            rnn_out = out = rnn.step(t, feed)  # [n, H]
            if attend is not None:
                out, p_attn = attend(rnn_out)
                attns["std"].append(p_attn)
            if self.context_gate is not None:
                out = self.context_gate(torch.cat([gated_emb[t], feed], 1), rnn_out, out)
            feed = out if drop is None else drop(out, t)
            outs.append(out if staggered else feed)
            if attend_to_copy is not None:
                attns["copy"].append(attend_to_copy.read(feed)[1])
            if self._coverage:
                coverage = p_attn if coverage is None else p_attn + coverage
                attns["coverage"].append(coverage)

        state = tuple(targets.unsort(part, 1) for part in rnn.final())
        weights = {name: targets.unpack(torch.cat(steps)) for name, steps in attns.items()}
        rows = torch.cat(outs)
        out = targets.unpack(_drop_output(keep_out, rows, targets) if staggered else rows)
        mark_kept(out, keep_out)
        return state, out, weights

    def _begin(
        self, targets: SortedTargets, emb: Tensor, keep_emb: Keep | None, keep_fed: Keep | None
    ) -> InputFeedRNN:
        """Return the layers before the first step, and draw what each of them keeps.

        Args:
            targets, emb: of the batch, and its packed embeddings ``[R, E]``, raw.
            keep_emb, keep_fed: what is kept of those, and of what a step hands on to the next.
        """
        B, T, H, layers = targets.B, targets.T, self.hidden_size, list(self.rnn.layers)
        # A step is fed what the step before put out, which is masked and scaled already.
        if isinstance(keep_fed, KeepSets) and ops.reads_back(emb):
            keep_fed = keep_fed.shifted(T).rescaled(1.0)
        else:
            keep_fed = None
        kind = InputFeedGRU if isinstance(layers[0], nn.GRUCell) else InputFeedLSTM
        # As in the toolkits, the first ones count: an encoder with more layers hands over more
        # states, and `mean` hands an h and a c to any cell.
        state = self.state["hidden"][: kind.parts]
        state = tuple(targets.sort(part[: len(layers)], 1) for part in state)
        return kind(
            layers, targets, emb, keep_emb,
            [keep_fed, *(self.draw("decoder", emb, T, B, H) for _ in layers[1:])],
            [self.draw("recurrent", emb, T, B, H) for _ in layers], state,
        )  # fmt: skip


def _drop_output(keep: Keep | None, rows: Tensor, targets: SortedTargets) -> Tensor:
    """Drop units of the output's rows ``[R, H]``, whose samples are sorted."""
    if isinstance(keep, StaggeredSets):
        keep = replace(keep, first=targets.sort(keep.first))
    return _apply(keep, rows, targets.sizes)


def _apply(keep: Keep | None, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
    return x if keep is None else keep.apply(x, batch_sizes)
