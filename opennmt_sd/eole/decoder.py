"""Eole's RNN decoders, with and without input feed, dropped by a plan."""

from __future__ import annotations

from typing import Any

import torch
from eole.decoders.rnn_decoder import InputFeedRNNDecoder, StdRNNDecoder
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.seq2seq.attention import Source
from opennmt_sd.seq2seq.decoder import DecoderMixin, InputFeedDecoderMixin, StdDecoderMixin
from opennmt_sd.seq2seq.sorted_targets import SortedTargets


class PaddedDecoderMixin(DecoderMixin):
    """Keeps what Eole's decoders are told of their targets' padding, and do not use."""

    _padding: Tensor | None = None

    def forward(self, emb: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self._padding = kwargs.get("tgt_pad_mask")  # [B, 1, T]
        return super().forward(emb, *args, **kwargs)  # type: ignore[misc]

    def targets(self, emb: Tensor, *, whole: bool = False) -> SortedTargets:
        """Return the order of targets with embeddings ``[B, T, E]``; whole: all words count."""
        known = self._padding is not None and not whole
        return self.order(emb, ~self._padding[:, 0] if known else None)  # type: ignore[index]


class StructuredStdRNNDecoder(StdDecoderMixin, PaddedDecoderMixin, StdRNNDecoder):
    """Without input feed."""

    def _run_forward_pass(
        self, emb: Tensor, enc_out: Tensor, src_pad_mask: Tensor | None = None
    ) -> Any:
        if not self.training:
            state, out, attns = super()._run_forward_pass(emb, enc_out, src_pad_mask=src_pad_mask)
            return state, out.contiguous(), attns  # an RNN's alone is not, and stock views it
        return self.train_pass(
            self.targets(emb), emb, source_of(enc_out, src_pad_mask),
            lambda queries: self.attn(queries, enc_out, src_pad_mask=src_pad_mask),
        )  # fmt: skip


class StructuredInputFeedRNNDecoder(InputFeedDecoderMixin, PaddedDecoderMixin, InputFeedRNNDecoder):
    """With input feed."""

    def _run_forward_pass(
        self, emb: Tensor, enc_out: Tensor, src_pad_mask: Tensor | None = None
    ) -> Any:
        if not self.training:
            return super()._run_forward_pass(emb, enc_out, src_pad_mask=src_pad_mask)
        # Coverage is summed, and its loss taken, past the end of a target too.
        targets = self.targets(emb, whole=self._coverage)
        return self.train_pass(targets, emb, source_of(enc_out, src_pad_mask))


def source_of(enc_out: Tensor, src_pad_mask: Tensor | None) -> Source:
    """Return what attention reads: ``[B, S, H]``, where a mask ``[B, 1, S]`` is not True."""
    if src_pad_mask is not None and not ops.reads_back(enc_out):  # a GPU is not waited for
        return Source(enc_out, src_pad_mask[:, 0], None)
    if src_pad_mask is None or not src_pad_mask.any():
        return Source(enc_out, None, None)
    padding = src_pad_mask[:, 0]
    lengths = (~padding).sum(1)
    past_end = torch.arange(padding.shape[1], device=padding.device) >= lengths[:, None]
    at_end = bool((past_end == padding).all()) and int(lengths.min()) > 0
    return Source(enc_out, padding, lengths if at_end else None)
