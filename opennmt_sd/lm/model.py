"""The language model: embedding, recurrent layers, vocabulary; any dropout at each place.

::

    ids [T, B] -> embedding (whole words dropped) -> NR -> LSTM (RH) -> NR -> LSTM (RH) -> ...
               -> FC -> vocabulary -> loss

A GRU may stand in the LSTM's place.

Sources: Zaremba et al., "Recurrent Neural Network Regularization", 2014 (NR and FC); Gal and
Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
NeurIPS 2016 (RH, words); Merity et al., "Regularizing and Optimizing LSTM Language Models", ICLR
2018 (tied weights, AR, TAR, DropConnect); Sarma et al., NeurIPS 2021, section 3 (structured sets).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep, check_rate
from opennmt_sd.dropout.apply import sent
from opennmt_sd.lm.weight_drop import drop_recurrent_weights
from opennmt_sd.nn import MaskedLinear, by_name
from opennmt_sd.nn.base import NOTHING, PatternAttribute, Structured
from opennmt_sd.nn.linear import Operands

Pattern = DropoutPattern | float | None
State = tuple[tuple[Tensor, ...], ...]  # of each stack (h, c), of a GRU (h,): [layers, B, H]


class Output(NamedTuple):
    """What a training forward gives.

    Args:
        loss: a scalar: the likelihood's part and the penalties.
        nats: a scalar, detached: the NLL summed over all targets.
        state: the state after the last step, detached.
    """

    loss: Tensor
    nats: Tensor
    state: State


def widths_of(embedding: int, hidden: int | Sequence[int], layers: int | None) -> list[int]:
    """List the widths from the embedding through every layer.

    Raises:
        ValueError: a width or a number of layers below 1, or one that contradicts the list.
    """
    listed = [hidden] * (1 if layers is None else layers) if isinstance(hidden, int) else [*hidden]
    if layers is not None and len(listed) != layers:
        raise ValueError(f"hidden {listed} has {len(listed)} widths for {layers} layers: leave "
                         "`layers` out, or give one width")  # fmt: skip
    if not listed or min(embedding, *listed) < 1:
        raise ValueError(f"the model needs a layer and widths of 1 or more, got embedding "
                         f"{embedding} and hidden {listed}")  # fmt: skip
    return [embedding, *listed]


def stacks_of(widths: list[int]) -> list[tuple[int, int, int]]:
    """List (input width, width, layers) of stacks: neighbouring layers of one width are one."""
    found = []
    before = widths[0]
    for width, group in groupby(widths[1:]):
        found.append((before, width, len(list(group))))
        before = width
    return found


class LanguageModel(Structured, nn.Module):
    """Predicts each next word.

    Args:
        vocabulary: V, number of words.
        embedding: width of the embedding.
        hidden: width of the layers, or one for each.
        layers: their number, where ``hidden`` is one width. Default 1.
        cell: of the layers, ``"lstm"`` (default) or ``"gru"``.
        nr: dropout on the input of every layer (the embedding's output, the layer below).
        rh: dropout on h before ``weight_hh``, in every layer. Default none.
        fc: dropout on the last layer's output before the vocabulary.
        input: dropout on the first layer's input, instead of ``nr``. Default: as ``nr``.
        words: dropout of whole words: a dropped word's embedding is zero wherever it occurs. The
            "units" are the V words: ``space="structured"`` shares them in the batch (AWD-LSTM),
            ``"random"`` gives each stream its own (Gal and Ghahramani). A bare rate means
            structured and fixed in time. Default none.
        weight_drop: rate of DropConnect on ``weight_hh``. Default 0.
        tied: the vocabulary's weight is the embedding's. Default False.
        ar, tar: weights of the penalties on the dropped output of the last layer and on the change
            of its output from step to step. Default 0.
        init: every parameter is drawn from U(-init, init). None: the embedding from U(-0.1, 0.1),
            the vocabulary's bias is zero, all else as torch has it (AWD-LSTM's choice). Default
            0.05.

    A bare rate means Case III. Each pattern draws anew in every forward call.

    Raises:
        ValueError, TypeError: a width, rate or penalty out of range, an unknown cell, or tied
            weights whose widths differ.
    """

    words = PatternAttribute()

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding: int = 650,
        hidden: int | Sequence[int] = 650,
        layers: int | None = None,
        cell: str = "lstm",
        nr: Pattern = None,
        rh: Pattern = None,
        fc: Pattern = None,
        input: Pattern = None,
        words: Pattern = None,
        weight_drop: float = 0.0,
        tied: bool = False,
        ar: float = 0.0,
        tar: float = 0.0,
        init: float | None = 0.05,
    ) -> None:
        super().__init__()
        widths = widths_of(embedding, hidden, layers)
        if vocabulary < 1:
            raise ValueError(f"the vocabulary needs at least one word, got {vocabulary}")
        if tied and widths[-1] != embedding:
            raise ValueError(
                f"tied weights need one width for the embedding ({embedding}) and the last layer "
                f"({widths[-1]})"
            )
        for name, value in (("ar", ar), ("tar", tar)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a weight of 0 or more, got {value}")
        check_rate(weight_drop, "weight_drop")
        if init is not None and not 0 < init < float("inf"):
            raise ValueError(f"init must be a bound above 0, or None, got {init}")

        layer = by_name.STRUCTURED[by_name.check_cell(cell)]
        self.embedding = nn.Embedding(vocabulary, embedding)
        nr = DropoutPattern.of(nr)
        first = nr if input is None else DropoutPattern.of(input)
        self.stacks = nn.ModuleList(
            layer(
                D, H, num_layers=count, input_dropout=nr if k else first,
                dropout=nr if count > 1 else NOTHING, recurrent_dropout=DropoutPattern.of(rh),
            )
            for k, (D, H, count) in enumerate(stacks_of(widths))
        )  # fmt: skip
        self.decoder = MaskedLinear(widths[-1], vocabulary, dropout=DropoutPattern.of(fc))
        self.words = words if isinstance(words, DropoutPattern) else DropoutPattern(
            DropoutPattern.of(words).p, time="fixed"
        )  # fmt: skip
        self.ar, self.tar = ar, tar
        if tied:
            self.decoder.weight = self.embedding.weight
        initialise(self, init)
        if weight_drop:
            for stack in self.stacks:
                drop_recurrent_weights(stack, weight_drop)

    def forward(
        self, ids: Tensor, targets: Tensor, state: State | None = None, *, scale: float = 1.0
    ) -> Output:
        """Return the loss of a segment.

        Args:
            ids, targets: int64 ``[T, B]``.
            state: from the segment before. Default zeros.
            scale: the loss, the mean over all targets and the penalties, is multiplied by it.
        """
        x, state = self._top(ids, state)  # [T, B, H]
        pattern = getattr(self.decoder, "dropout", NOTHING)  # reverted, it is an nn.Linear
        weight, bias = self.decoder.weight, self.decoder.bias
        factor = scale / targets.numel()

        def score(operands: Operands, keep: Keep | None, _: bool = False) -> Tensor:
            x, weight, bias = operands
            given = x, keep, weight, bias, targets
            return ops.projected_nll(*given, factor=factor, hits=False)[0]

        operands = x, weight, bias
        T, B, _ = x.shape
        gathers = self.training and pattern.shared and ops.gathers(
            x, weight,
            lambda: ops.Shared("vocabulary", pattern, T, B, weight.shape, operands, score),
        )  # fmt: skip
        keep = self._draw(pattern, *x.shape, dense=not (gathers or ops.leaves_out(x)))
        nll = score(operands, keep)
        nats = nll.detach() * (targets.numel() / scale)
        loss = nll
        if self.training and self.ar:
            dropped = x if keep is None else keep.apply(x)
            loss = loss + scale * self.ar * dropped.pow(2).mean()
        if self.training and self.tar and len(x) > 1:
            loss = loss + scale * self.tar * (x[1:] - x[:-1]).pow(2).mean()
        return Output(loss, nats, tuple(tuple(s.detach() for s in of) for of in state))

    def logits(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return ``[T, B, V]`` and the state: for sampling, and for who wants the distribution."""
        x, state = self._top(ids, state)
        return self.decoder(x), state

    def _top(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the last layer's output ``[T, B, H]``, not dropped yet, and the state."""
        x = self.embedding(ids)  # [T, B, D]
        T, B = ids.shape
        keep = self._draw(self.words, T, B, self.embedding.num_embeddings)
        if keep is not None:
            x = drop_words(x, ids, keep)
        finals = []
        for k, stack in enumerate(self.stacks):
            x, final = by_name.run(stack, x, None if state is None else state[k])
            finals.append(final)
        return x, tuple(finals)


def drop_words(x: Tensor, ids: Tensor, keep: Keep) -> Tensor:
    """Zero the embeddings of dropped words and scale the others.

    Args:
        x: ``[T, B, D]``, looked up for ``ids`` ``[T, B]``.
        keep: of width V: which words are kept.
    """
    mask = sent(keep.mask(), x.device).expand(*ids.shape, -1)  # [T, B, V]: a view
    kept = mask.gather(2, ids[..., None])  # [T, B, 1]
    return torch.where(kept, x * keep.scale, x.new_zeros(()))


@torch.no_grad()
def initialise(model: nn.Module, init: float | None) -> None:
    """Draw the parameters; see :class:`LanguageModel`. A shared one is drawn once."""
    if init is not None:
        for parameter in model.parameters():
            parameter.uniform_(-init, init)
        return
    model.embedding.weight.uniform_(-0.1, 0.1)  # type: ignore[union-attr,operator]
    if model.decoder.weight is not model.embedding.weight:  # type: ignore[union-attr]
        model.decoder.weight.uniform_(-0.1, 0.1)  # type: ignore[union-attr,operator]
    model.decoder.bias.zero_()  # type: ignore[union-attr,operator]
