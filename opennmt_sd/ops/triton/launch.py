"""Launches the kernels of a cell: what they are given, and how its weights lie for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.compat import tf32
from opennmt_sd.ops.triton.gru_kernels import gru_bp, gru_fp
from opennmt_sd.ops.triton.lstm_kernels import lstm_bp, lstm_fp
from opennmt_sd.ops.triton.operands import Steps
from opennmt_sd.ops.triton.tiling import Product, Tiling, tiling


class Cell(NamedTuple):
    """The kernels of a cell."""

    gates: int
    fp: Any
    bp: Any


CELLS = {"LSTM": Cell(4, lstm_fp, lstm_bp), "GRU": Cell(3, gru_fp, gru_bp)}


class Left(NamedTuple):
    """What a forward pass leaves for backward: what entered the products ``[R, H]``, the activated
    gates ``[R, gates H]``, and ``[R, H]`` each c (of a GRU h) and what the reset gate scales (of an
    LSTM nothing: c again)."""

    masked: Tensor
    gates: Tensor
    cells: Tensor
    q: Tensor


def fp(
    name: str, steps: Steps, gates_x: Tensor, weight: Tensor, bias: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...], Left]:  # fmt: skip
    """Run all steps forward; return h of all rows ``[R, H]``, the final state ``[B, H]`` each, and
    what backward needs.

    Args:
        name: of the cell.
        gates_x: ``[R, gates H]``.
        weight, bias: ``[gates H, H]`` and ``[gates H]``, of the state's product.
        state: ``[B, H]`` each.
    """
    cell, H = CELLS[name], weight.shape[1]
    tiles = tiling(steps.B, H, weight.dtype, weight.device)
    stride = _padded(H)
    gates = gates_x.new_empty(gates_x.shape, dtype=torch.float32)
    cells = gates.new_empty(steps.R, H)
    q = cells if name == "LSTM" else torch.empty_like(cells)
    hidden, masked = gates_x.new_empty(steps.R, H), gates_x.new_empty(steps.R, stride)
    laid = weight.new_empty(H, tiles.parts * tiles.U, 4)
    laid[:, :H, : cell.gates] = weight.reshape(cell.gates, H, H).permute(2, 1, 0)
    final = _run(
        cell.fp, tiles, tiles.fp, steps.T, state,
        (gates_x, laid, bias, masked, hidden, gates, cells, q),
        (steps.dropped, steps.kept, steps.count, steps.sizes, steps.offsets),
        (steps.T, steps.B, H, stride, laid.stride(0), *_sets(steps), steps.scale),
        COMPACT=steps.kept is not None, BIAS=bias is not None, **_flags(steps),
    )  # fmt: skip
    return hidden, final, Left(masked[:, :H], gates, cells, q)


def bp(
    name: str, steps: Steps, left: Left, weight: Tensor, state: tuple[Tensor, ...],
    d_hidden: Tensor, d_state: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Run all steps backward.

    Args:
        name, steps, weight, state: as they were given to :func:`fp`; left: what it left.
        d_hidden, d_state: the gradients of what it gave.

    Returns:
        The gradients of what the products of the input and of the state gave, ``[R, gates H]``
        each (of an LSTM it is one tensor), and those of the state, ``[B, H]`` each.
    """
    cell, H = CELLS[name], weight.shape[1]
    tiles = tiling(steps.B, H, weight.dtype, weight.device)
    N, stride = cell.gates * H, _padded(cell.gates * H)
    d_gates = weight.new_empty(steps.R, stride)
    d_gates_h = d_gates if name == "LSTM" else torch.empty_like(d_gates)
    laid = F.pad(weight, (0, tiles.parts * tiles.U - H))
    laid = laid.reshape(N, tiles.parts, tiles.U).transpose(0, 1).contiguous()
    d_first = _run(
        cell.bp, tiles, tiles.bp, steps.T + 1, d_state,
        (d_hidden, left.gates, left.cells, left.q, state[-1], laid, d_gates, d_gates_h),
        (steps.dropped, steps.sizes, steps.offsets),
        (steps.T, steps.B, H, stride, *_sets(steps), steps.scale), **_flags(steps),
    )  # fmt: skip
    return d_gates[:, :N], d_gates_h[:, :N], d_first


def _run(
    kernel: Any, tiles: Tiling, product: Product, steps: int,
    state: tuple[Tensor, ...], data: tuple[Tensor | None, ...], sets: tuple[Tensor | None, ...],
    numbers: tuple[float, ...], **flags: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run all steps, in one launch or in one each; return the state that is reached."""
    x = state[0]
    flags |= {"BT": tiles.BT, "U": tiles.U, "K": product.K, "SPLIT": product.SPLIT,
              "ONCE": tiles.at_once, "num_warps": product.warps,
              "num_stages": product.stages,
              "PRECISION": "tf32" if "tf32" in tf32()[0] else product.float32}  # fmt: skip
    if tiles.at_once:
        flags["launch_cooperative_grid"] = True
        launches = [(0, steps)]
        arrived = torch.zeros(tiles.batches, dtype=torch.int32, device=x.device)
        reached = [torch.empty_like(s, memory_format=torch.contiguous_format) for s in state]
    else:
        launches = [(s, min(s + 1, steps)) for s in (0, *range(steps))]
        launches[0] = 0, 0  # what enters the first step must be there before it begins
        arrived = x
        reached = [s.new_empty(s.shape, dtype=torch.float32) for s in state]
    given = [x if t is None else t.contiguous() for t in (*data, *sets)]  # None is not read
    before = [s.contiguous() for s in state]
    with torch.cuda.device_of(x):  # Triton launches on the current one
        for begin, end in launches:
            kernel[tiles.parts, tiles.batches](
                *given[: len(data)], before[0], before[-1], reached[0], reached[-1],
                *given[len(data) :], arrived, begin, end, *numbers, **flags,
            )  # fmt: skip
            before = reached
    return tuple(s.to(x.dtype) for s in reached)


def _padded(width: int) -> int:
    """Return a row's length such that no two rows share a line of a cache: one may still be written
    when the other is read."""
    return -(-width // 64) * 64


def _sets(steps: Steps) -> tuple[int, int]:
    return (1, 1) if steps.dropped is None else (len(steps.dropped), steps.dropped.shape[1])


def _flags(steps: Steps) -> dict[str, Any]:
    return {
        "DROPS": steps.dropped is not None,
        "PACKED": steps.sizes is not None,
        "REVERSE": steps.reverse,
    }
