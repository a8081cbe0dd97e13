"""The ops: one contract, several engines. Every function here checks, and chooses the engine.

Axis names: T time, B batch, D input features, H hidden, N output features. Gate order i, f, g, o.
A sequence is ``[T, B, .]``, or packed: ``[sum(batch_sizes), .]`` with ``batch_sizes`` as in
``torch.nn.utils.rnn.PackedSequence`` (int64 on the CPU, never growing).

Source: Sarma et al., "Structured in Space, Randomized in Time", NeurIPS 2021, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep
from opennmt_sd.eager import eager, traceable
from opennmt_sd.ops.autocast import lowered
from opennmt_sd.ops.checks import (
    check_alike,
    check_bias,
    check_floating,
    check_keep,
    check_one,
    check_rows,
    check_state,
    check_weight,
)
from opennmt_sd.ops.engines import (
    engine,
    engine_for,
    forced,
    has_kernels,
    leaves_out,
    use,
    worth_compacting,
)

__all__ = [
    "attend_step",
    "engine_for",
    "forced",
    "has_kernels",
    "leaves_out",
    "lstm",
    "lstm_gates",
    "lstm_layer",
    "masked_linear",
    "masked_linear_step",
    "prepare",
    "prepare_memory",
    "projected_nll",
    "use",
    "worth_compacting",
]


@traceable
def masked_linear(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    batch_sizes: Tensor | None = None,
) -> Tensor:
    """A linear layer on a dropped input: ``y = dropped(x) @ weight.T + bias``.

    FP, BP and WG need only the kept units of a structured set.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw: dropped entries are never
            read, kept ones are scaled here.
        keep: what is kept (:meth:`DropoutPattern.draw`), for T steps or one for all; None keeps
            everything.
        weight: ``[N, D]``, as in ``nn.Linear``.
        bias: ``[N]``; default none.
        batch_sizes: int64 ``[T]``, for packed rows; default none.

    Returns:
        ``[T, B, N]`` or packed ``[sum(batch_sizes), N]``. The gradient for x is zero outside the
        kept units.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
    """
    T, B = check_rows(x, batch_sizes, "x", "D")
    check_weight(weight, x.shape[-1])
    check_bias(bias, weight.shape[0])
    check_keep(keep, T, B, x.shape[-1])
    context, (x, weight, bias) = lowered(x, weight, bias)
    check_alike(x=x, weight=weight, bias=bias)
    with context:
        return engine(x).masked_linear(x, keep, weight, bias, batch_sizes)


@traceable
def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None = None,
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The recurrence of one LSTM layer in one direction, over all steps.

    Args:
        gates_x: ``[T, B, 4H]`` or packed: the input's part of the gates, both biases included
            (from :func:`masked_linear`).
        weight_hh: ``[4H, H]``.
        h, c: initial state, ``[B, H]`` each.
        keep: keep sets of the recurrent state; set t acts on the h that enters position t, the
            given one included. The h and c that come back are undropped. Default none.
        batch_sizes: int64 ``[T]``, for packed rows; default none.
        reverse: from the last step to the first. Default False.

    Returns:
        All h (``[T, B, H]`` or packed), the final h and the final c (``[B, H]`` each).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
    """
    T, B = check_rows(gates_x, batch_sizes, "gates_x", "4H")
    if T == 0:
        raise ValueError(f"gates_x must have at least one step, got {list(gates_x.shape)}")
    H = weight_hh.shape[-1]
    check_weight(weight_hh, gates_x.shape[-1] // 4, "weight_hh")
    if weight_hh.shape[0] != 4 * H or gates_x.shape[-1] != 4 * H:
        raise ValueError(
            f"gates_x [.., 4H] and weight_hh [4H, H] do not fit: {list(gates_x.shape)} and "
            f"{list(weight_hh.shape)}"
        )
    check_state("h", h, B, H)
    check_state("c", c, B, H)
    check_keep(keep, T, B, H)
    context, (gates_x, weight_hh, h, c) = lowered(gates_x, weight_hh, h, c)
    check_alike(gates_x=gates_x, weight_hh=weight_hh, h=h, c=c)
    with context:
        return engine(gates_x).lstm(gates_x, weight_hh, h, c, keep, batch_sizes, reverse)


@traceable
def lstm_layer(
    x: Tensor,
    keep: Keep | None,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    state_keep: Keep | None = None,
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer in one direction: :func:`masked_linear`, then :func:`lstm`, as one piece.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw.
        keep: what is kept of x; None keeps everything.
        weight_ih: ``[4H, D]``.
        bias: ``[4H]``, the sum of both of ``nn.LSTM``'s; None for none.
        weight_hh: ``[4H, H]``.
        h, c: initial state, ``[B, H]`` each.
        state_keep, batch_sizes, reverse: as in :func:`lstm`.

    Returns:
        All h (``[T, B, H]`` or packed), the final h and the final c (``[B, H]`` each).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
    """
    T, B = check_rows(x, batch_sizes, "x", "D")
    if T == 0:
        raise ValueError(f"x must have at least one step, got {list(x.shape)}")
    H = weight_hh.shape[-1]
    check_weight(weight_ih, x.shape[-1], "weight_ih")
    check_weight(weight_hh, H, "weight_hh")
    if not weight_ih.shape[0] == weight_hh.shape[0] == 4 * H:
        raise ValueError(
            f"weight_ih [4H, D] and weight_hh [4H, H] do not fit: {list(weight_ih.shape)} and "
            f"{list(weight_hh.shape)}"
        )
    check_bias(bias, 4 * H)
    check_state("h", h, B, H)
    check_state("c", c, B, H)
    check_keep(keep, T, B, x.shape[-1])
    check_keep(state_keep, T, B, H)
    context, (x, weight_ih, bias, weight_hh, h, c) = lowered(x, weight_ih, bias, weight_hh, h, c)
    check_alike(x=x, weight_ih=weight_ih, bias=bias, weight_hh=weight_hh, h=h, c=c)
    with context:
        return engine(x).lstm_layer(
            x, keep, weight_ih, bias, weight_hh, h, c, state_keep, batch_sizes, reverse
        )


@eager
def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The pointwise part of one LSTM step: ``gates [B, 4H]`` before activation, ``c [B, H]``.

    Returns:
        h and c, ``[B, H]`` each; of two dtypes, the wider one.
    """
    if gates.dim() != 2 or c.dim() != 2 or gates.shape != (c.shape[0], 4 * c.shape[1]):
        raise ValueError(
            f"gates must be [B, 4H] and c [B, H], got {list(gates.shape)} and {list(c.shape)}"
        )
    check_floating(gates, "gates")
    check_floating(c, "c")
    check_one("device", gates=gates, c=c)
    return engine(gates).lstm_gates(gates, c)


@eager
def projected_nll(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    batch_sizes: Tensor | None = None,
    label_smoothing: float = 0.0,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The loss of a classifier on a dropped input: :func:`masked_linear`, then cross entropy.

    The two are one op since a buffer of logits that nobody else sees can become its own gradient:
    one ``[rows, V]`` buffer is held, where ``F.linear`` and ``F.cross_entropy`` hold up to three.

    Args:
        x: ``[T, B, D]`` or packed ``[sum(batch_sizes), D]``, raw: dropped entries are never read.
        keep: what is kept of x; None keeps everything.
        weight: ``[V, D]``.
        bias: ``[V]``; None for none.
        targets: int64, one for each row of x, in [0, V).
        batch_sizes: int64 ``[T]``, for packed rows; default none.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``. Default 0.
        factor: what the sum over all rows is multiplied by. Default 1.

    Returns:
        ``factor`` times the sum of the losses, a scalar in nats, float32 where x is float32 or
        lower; and of how many rows the target has the largest logit, a scalar int64.

    Raises:
        TypeError, ValueError: shapes, dtypes or devices that do not fit; the text says which.
        IndexError or RuntimeError (torch's own): a target outside [0, V). RuntimeError: double
        backward outside the naive engine.
    """
    T, B = check_rows(x, batch_sizes, "x", "D")
    check_weight(weight, x.shape[-1])
    check_bias(bias, weight.shape[0])
    check_keep(keep, T, B, x.shape[-1])
    if targets.shape != x.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"targets must be int64 {list(x.shape[:-1])}, one for each row of x; got "
            f"{targets.dtype} {list(targets.shape)}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    context, (x, weight, bias) = lowered(x, weight, bias)
    check_alike(x=x, weight=weight, bias=bias)
    with context:
        return engine(x).projected_nll(
            x, keep, weight, bias, targets, batch_sizes, label_smoothing, factor
        )


@dataclass(frozen=True, eq=False)
class PreparedWeight:
    """A weight prepared for stepwise use: for one forward and backward pass."""

    engine: ModuleType
    handle: Any
    shape: torch.Size
    like: Tensor  # empty: the weight's dtype and device


@eager
def prepare(weight: Tensor, bias: Tensor | None = None) -> PreparedWeight:
    """Prepare ``weight [N, D]`` (and ``bias [N]``) for :func:`masked_linear_step`.

    The handle lives for one forward and backward pass: steps make no weight gradient of their
    own; one time-batched gradient is made once all steps have run backward.
    """
    check_weight(weight, weight.shape[-1])
    check_bias(bias, weight.shape[0])
    check_floating(weight, "weight")
    _, (weight, bias) = lowered(weight, bias)
    check_alike(weight=weight, bias=bias)
    chosen = engine(weight)
    handle = chosen.prepare(weight, bias)
    return PreparedWeight(chosen, handle, weight.shape, weight.detach().new_empty(0))


@eager
def masked_linear_step(
    handle: PreparedWeight, x: Tensor, keep: Keep | None = None, t: int = 0
) -> Tensor:
    """One step of :func:`masked_linear`, for a loop that needs y_t before x_{t+1} exists.

    Args:
        handle: from :func:`prepare`.
        x: ``[n, D]``, raw: the first n samples of the batch. Sequences may end, as in packed rows.
        keep: keep sets of the whole sequence (or one for all steps); None keeps everything.
        t: the step whose set applies.

    Returns:
        ``[n, N]``.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit. IndexError: no step t.
    """
    N, D = handle.shape
    if x.dim() != 2 or x.shape[1] != D:
        raise ValueError(f"x must be [n, {D}] for a prepared weight [{N}, {D}], got "
                         f"{list(x.shape)}")  # fmt: skip
    if keep is not None:
        if not 0 <= t < max(keep.steps, 1) and keep.steps != 1:
            raise IndexError(f"step {t} is out of range: the keep sets hold {keep.steps} steps")
        check_keep(keep, keep.steps, x.shape[0], D, ended=True)
    context, (x,) = lowered(x)
    check_alike(x=x, weight=handle.like)
    with context:
        return handle.engine.masked_linear_step(handle.handle, x, keep, t)


@dataclass(frozen=True, eq=False)
class PreparedMemory:
    """A memory prepared for stepwise attention: for one forward and backward pass."""

    memory: Any  # of an engine
    like: Tensor  # [B, 0, D]: its size, dtype and device


@eager
def prepare_memory(memory: Tensor, lengths: Tensor | None = None) -> PreparedMemory:
    """Prepare ``memory [B, S, D]`` for :func:`attend_step`.

    The handle lives for one forward and backward pass: steps make no gradient of the memory; one
    is made once all steps have run backward.

    Args:
        memory: ``[B, S, D]``, with S at least 1.
        lengths: int64 ``[B]``: what lies past them is padding and gets no attention. Default none.

    Raises:
        TypeError, ValueError: shapes that do not fit; the text says which.
    """
    if memory.dim() != 3 or not memory.shape[1]:
        raise ValueError(f"memory must be [B, S, D] with S >= 1, got {list(memory.shape)}")
    check_floating(memory, "memory")
    B, S, _ = memory.shape
    if lengths is not None:
        if lengths.shape != (B,) or lengths.dtype != torch.int64:
            raise ValueError(
                f"lengths must be int64 [{B}], one for each memory; got {lengths.dtype} "
                f"{list(lengths.shape)}"
            )
        if B and not 1 <= int(lengths.min()) <= int(lengths.max()) <= S:
            raise ValueError(
                f"lengths must be in [1, {S}], the steps of the memory; got {int(lengths.min())} "
                f"to {int(lengths.max())}"
            )
        lengths = lengths.to(memory.device)
    _, (memory,) = lowered(memory)
    return PreparedMemory(engine(memory).prepare_memory(memory, lengths), memory.detach()[:, :0])


@eager
def attend_step(handle: PreparedMemory, query: Tensor) -> tuple[Tensor, Tensor]:
    """One step of dot-product attention: ``softmax(memory @ query)`` and what it picks.

    Args:
        handle: from :func:`prepare_memory`.
        query: ``[n, D]``: of the first n memories.

    Returns:
        The context ``[n, D]``, the weighted sum of the memory; and the weights ``[n, S]``.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.
    """
    B, _, D = handle.like.shape
    if query.dim() != 2 or query.shape[0] > B or query.shape[1] != D:
        raise ValueError(
            f"query must be [n, {D}] with n <= {B} for a memory [{B}, S, {D}], got "
            f"{list(query.shape)}"
        )
    context, (query,) = lowered(query)
    check_alike(query=query, memory=handle.like)
    with context:
        return handle.memory.attend(query)
