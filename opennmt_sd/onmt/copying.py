"""Copied words (``copy_attn``): their probabilities, their loss, their search, their checkpoints.

Stock's rows are in two orders at once, by sentence and by step, so that a step's probability to
copy is multiplied with another step's attention; its search reads the words of another sentence
once one has finished; and it cannot load what it saved. Here rows are by sentence.

Source: See et al., "Get To The Point: Summarization with Pointer-Generator Networks", 2017.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from onmt.constants import DefaultTokens, ModelTask
from onmt.utils import Statistics
from onmt.utils.loss import LossCompute
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.seq2seq.loss import rows_by_set
from opennmt_sd.seq2seq.plain_linear import is_plain_linear
from opennmt_sd.seq2seq.wrapping import Function

UNK = DefaultTokens.UNK


def word_probabilities(generator: Any, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Give the probabilities of a copying generator.

    Args:
        generator: stock's CopyGenerator.
        hidden: the decoder's output, ``[..., H]``.
        logits: what its linear layer makes of that, ``[..., V]``.

    Returns:
        That of each word of the vocabulary, ``[..., V]``, and that of a copy, ``[..., 1]``: they
        sum to 1.
    """
    copies = torch.sigmoid(generator.linear_copy(hidden))
    padding = torch.tensor([generator.pad_idx], device=logits.device)
    words = torch.softmax(logits.index_fill(-1, padding, -torch.inf), -1)
    return words * (1 - copies), copies


def extended_probabilities(generator: Any, hidden: Tensor, attn: Tensor, src_map: Tensor) -> Tensor:
    """Give the probabilities ``[B, T, V + C]`` of the vocabulary and of each source's own words.

    Args:
        generator: stock's CopyGenerator.
        hidden: ``[B, T, H]``.
        attn: weights of the source, ``[B, T, S]``.
        src_map: 1 where a source has a word of its own, ``[B, S, C]``.
    """
    words, copies = word_probabilities(generator, hidden, generator.linear(hidden))
    return torch.cat([words, torch.bmm(attn * copies, src_map.to(attn.dtype))], -1)


def extended_numbers(batch: Mapping[str, Any], vocab: Any, C: int, device: torch.device) -> Tensor:
    """Give the number that each source's own words have in the extended vocabulary, ``[B, C]``.

    A word that the target's vocabulary knows has its number there; any other follows behind.
    """
    V, unk = len(vocab), vocab[UNK]
    numbers = []
    for own in batch["src_ex_vocab"]:
        known = [vocab[word] for word in own.ids_to_tokens[:C]]
        row = [V + i if n == unk else n for i, n in enumerate(known)]
        numbers.append([*row, *range(V + len(row), V + C)])
    return torch.tensor(numbers, device=device)


def fold(scores: Tensor, numbers: Tensor) -> Tensor:
    """Add the probability of a copy to that of the word itself, where the vocabulary has it.

    Args:
        scores: ``[N, V + C]``.
        numbers: see :func:`extended_numbers`, ``[N, C]``.
    """
    C = numbers.shape[-1]
    words = torch.nn.functional.pad(scores[:, :-C], (0, C))
    return words.scatter_add(-1, numbers, scores[:, -C:])


class CopyLossCompute(LossCompute):
    """The loss of a copying generator.

    Attributes:
        by_length: divide the loss of a sentence by its length; its statistics stay sums.
    """

    by_length: bool

    @classmethod
    def take_over(cls, loss: LossCompute, *, by_length: bool) -> LossCompute:
        """Make a loss of stock's one of ours."""
        if type(loss) is LossCompute and loss.copy_attn:
            loss.__class__ = cls
            loss.by_length = by_length
        return loss

    def forward(
        self,
        batch: Mapping[str, Any],
        output: Tensor,
        attns: Mapping[str, Tensor],
        trunc_start: int = 0,  # noqa: ARG002 - stock's signature; truncation is refused
        trunc_size: int | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Statistics]:
        target = batch["tgt"][:, self.tgt_shift_index :, 0]  # [B, T]
        align = batch["alignment"][:, self.tgt_shift_index :]  # [B, T]
        alive = (target != self.padding_idx).t()  # [T, B]: rows are time first
        words, align, rows = target.t()[alive], align.t()[alive], output.transpose(0, 1)[alive]
        known, copies = word_probabilities(self.generator, rows, self._logits(output, rows, alive))
        # Each sentence's own words, [B, T, C]
        own = torch.bmm(
            attns["copy"].transpose(0, 1).to(rows.dtype), batch["src_map"].to(rows.dtype)
        )
        scores = torch.cat([known, copies * own.transpose(0, 1)[alive]], 1).float()
        losses = self.criterion(scores, align, words)  # [R]
        loss = losses.sum()
        counted = loss.item()
        sentence = torch.arange(len(target), device=target.device).expand(alive.shape)[alive]
        if self.by_length:
            loss = (losses / alive.sum(0)[sentence]).sum()
        if self.lambda_coverage:
            flat = target.t().reshape(-1)  # as attention is: time first
            coverage = self._compute_coverage_loss(attns["std"], attns["coverage"], flat)
            loss, counted = loss + coverage, counted + coverage.item()
        numbers = extended_numbers(batch, self.vocab, batch["src_map"].shape[-1], rows.device)
        guesses = fold(scores.detach(), numbers[sentence]).argmax(1)
        unk = self.criterion.unk_index
        wanted = torch.where((words == unk) & (align != unk), align + len(self.vocab), words)
        return loss, Statistics(
            loss=counted,
            n_batchs=1,
            n_sents=len(target),
            n_words=len(words),
            n_correct=int((guesses == wanted).sum()),
        )

    def _logits(self, output: Tensor, rows: Tensor, alive: Tensor) -> Tensor:
        """Give the generator's output ``[R, V]``, without the units that are dropped."""
        linear = self.generator.linear
        keep, order, sizes = rows_by_set(output, alive)
        if keep is None or not is_plain_linear(linear):
            return linear(rows)
        rows = rows if order is None else rows[order]
        logits = ops.masked_linear(rows, keep, linear.weight, linear.bias, batch_sizes=sizes)
        return logits if order is None else logits[order.argsort()]


def with_copies(stock: Function) -> Function:
    """Wrap `Inference._decode_and_generate`: of a copying model, one or several."""

    @functools.wraps(stock)
    def wrapped(
        self: Any,
        decoder_in: Tensor,
        enc_out: Any,
        batch: dict[str, Any],
        src_len: Tensor,
        src_map: Tensor | None = None,
        step: int | None = None,
        batch_offset: Tensor | None = None,
        return_attn: bool = False,
    ) -> tuple[Tensor, Tensor]:
        if src_map is None or self.vocabs["data_task"] != ModelTask.SEQ2SEQ:
            return stock(
                self, decoder_in, enc_out, batch, src_len, src_map, step, batch_offset, return_attn
            )
        known = decoder_in.masked_fill(decoder_in >= self._tgt_vocab_len, self._tgt_unk_idx)
        out, attns = self.model.decoder(
            known, enc_out, src_len=src_len, step=step, return_attn=True
        )
        outs = getattr(out, "model_dec_outs", [out])
        generators = getattr(self.model.generator, "model_generators", [self.model.generator])
        scores = torch.stack(
            [
                extended_probabilities(generator, hidden, attns["copy"], src_map)
                for generator, hidden in zip(generators, outs, strict=True)
            ]
        ).mean(0)  # [N, T, V + C]
        if "copy_numbers" not in batch:
            batch["copy_numbers"] = extended_numbers(
                batch, self._tgt_vocab, src_map.shape[-1], scores.device
            )
        numbers = batch["copy_numbers"]  # [B, C]
        if batch_offset is not None:
            numbers = numbers[batch_offset.to(numbers.device)]
        each = scores.shape[0] * scores.shape[1] // len(numbers)
        folded = fold(scores.flatten(0, 1), numbers.repeat_interleave(each, 0))
        log_probs = folded.view(scores.shape).log()
        return (log_probs if step is None else log_probs.squeeze(1)), attns["copy"]

    return wrapped


def with_scores_of_copies(stock: Function) -> Function:
    """Wrap `Translator._score_target`: an unknown word that the source has is a copy, as in
    training."""

    @functools.wraps(stock)
    def wrapped(
        self: Any, batch: dict[str, Any], enc_out: Any, src_len: Tensor, src_map: Tensor | None
    ) -> Any:
        if src_map is None:
            return stock(self, batch, enc_out, src_len, src_map)
        tgt, align = batch["tgt"], batch["alignment"]
        log_probs, _ = self._decode_and_generate(tgt[:, :-1], enc_out, batch, src_len, src_map)
        words, align = tgt[:, 1:, 0], align[:, 1:]
        copied = (words == self._tgt_unk_idx) & (align != 0)  # 0: not of the source
        words = torch.where(copied, align + self._tgt_vocab_len, words)
        scores = log_probs.gather(2, words.unsqueeze(2)).squeeze(2)
        return scores.masked_fill(words == self._tgt_pad_idx, 0.0).sum(1), None

    return wrapped


def with_copy_keys(stock: Function) -> Function:
    """Wrap `textbatch_to_tensor`, by which the server makes its batches: with what a copying model
    needs to know of its sources."""
    from onmt.inputters.text_utils import _addcopykeys

    @functools.wraps(stock)
    def wrapped(vocabs: Any, batch: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        if vocabs.get("copies"):
            batch = [_addcopykeys(vocabs, example) for example in batch]
        return stock(vocabs, batch, *args, **kwargs)

    return wrapped
