"""What an engine is: the functions that each has, and the records that they take.

Axis names: T time, B batch, D input features, H hidden, N output features, V vocabulary. A sequence
is ``[T, B, .]``, or packed rows ``[sum(batch_sizes), .]``. Gate order i, f, g, o of an LSTM, and
r, z, n of a GRU.

A further argument of an op is a further field of its record, with a default: records are made and
read by name. ``lowers``, for the cpu engine alone: the operands are float32, and what autocast asks
for is bfloat16, which products are made in (where the processor can) and results have.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from opennmt_sd.dropout import Keep


class Projection(NamedTuple):
    """The operands of a linear layer on a dropped input: x ``[T, B, D]`` or packed, weight
    ``[N, D]``, bias ``[N]``."""

    x: Tensor
    keep: Keep | None
    weight: Tensor
    bias: Tensor | None = None
    batch_sizes: Tensor | None = None
    lowers: bool = False


class LSTMLayer(NamedTuple):
    """The operands of one LSTM layer in one direction.

    x ``[T, B, D]`` or packed; weight_ih ``[4H, D]``; bias ``[4H]``; weight_hh ``[4H, H]``; h and c
    ``[B, H]``. ``keep`` is of x, ``state_keep`` of the state that enters each step; None keeps all.
    """

    x: Tensor
    keep: Keep | None
    weight_ih: Tensor
    bias: Tensor | None
    weight_hh: Tensor
    h: Tensor
    c: Tensor
    state_keep: Keep | None = None
    batch_sizes: Tensor | None = None
    reverse: bool = False
    lowers: bool = False


class GRULayer(NamedTuple):
    """The operands of one GRU layer in one direction.

    x ``[T, B, D]`` or packed; weight_ih ``[3H, D]``; bias ``[3H]``: b_ih, plus b_hh in the gates r
    and z; weight_hh ``[3H, H]``; bias_hn ``[H]``: the rest of b_hh, which the reset gate scales; h
    ``[B, H]``. ``keep`` is of x, ``state_keep`` of the state that enters the products of each step;
    None keeps all.
    """

    x: Tensor
    keep: Keep | None
    weight_ih: Tensor
    bias: Tensor | None
    weight_hh: Tensor
    bias_hn: Tensor | None
    h: Tensor
    state_keep: Keep | None = None
    batch_sizes: Tensor | None = None
    reverse: bool = False
    lowers: bool = False


def projection_of(layer: LSTMLayer | GRULayer) -> Projection:
    """Return the product of a layer's input."""
    return Projection(
        x=layer.x, keep=layer.keep, weight=layer.weight_ih, bias=layer.bias,
        batch_sizes=layer.batch_sizes, lowers=layer.lowers,
    )  # fmt: skip


class Loss(NamedTuple):
    """How a projection onto the vocabulary is scored: see :func:`opennmt_sd.ops.projected_nll`."""

    targets: Tensor
    label_smoothing: float = 0.0
    factor: float = 1.0
    hits: bool = True


class StepwiseLinear(Protocol):
    """A prepared weight, used a step at a time."""

    def step(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        """Return the product ``[n, N]`` of x ``[n, D]``, with the set of step t."""


class StepwiseAttention(Protocol):
    """A prepared memory, read a step at a time."""

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context ``[n, D]`` and the weights ``[n, S]`` of a query ``[n, D]``."""


class Engine(Protocol):
    """The ops of one engine. Arguments have been checked, and are on one device, of one dtype."""

    def masked_linear(self, projection: Projection) -> Tensor:
        """See :func:`opennmt_sd.ops.masked_linear`."""

    def lstm_layer(self, layer: LSTMLayer) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`opennmt_sd.ops.lstm_layer`."""

    def lstm_gates(
        self, gates: Tensor, c: Tensor, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :func:`opennmt_sd.ops.lstm_gates`."""

    def gru_layer(self, layer: GRULayer) -> tuple[Tensor, Tensor]:
        """See :func:`opennmt_sd.ops.gru_layer`."""

    def gru_gates(self, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
        """See :func:`opennmt_sd.ops.gru_gates`."""

    def projected_nll(self, projection: Projection, loss: Loss) -> tuple[Tensor, Tensor]:
        """See :func:`opennmt_sd.ops.projected_nll`."""

    def prepare(self, weight: Tensor, bias: Tensor | None) -> StepwiseLinear:
        """See :func:`opennmt_sd.ops.prepare`."""

    def prepare_memory(self, memory: Tensor, lengths: Tensor | None) -> StepwiseAttention:
        """See :func:`opennmt_sd.ops.prepare_memory`."""
