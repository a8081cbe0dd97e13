"""Recurrent layers by the name of their cell, for models whose configuration names it."""

from __future__ import annotations

from torch import Tensor, nn

from opennmt_sd.nn.gru import StructuredGRU
from opennmt_sd.nn.lstm import StructuredLSTM

STRUCTURED: dict[str, type[StructuredLSTM | StructuredGRU]] = {
    "lstm": StructuredLSTM,
    "gru": StructuredGRU,
}
TORCHS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


def check_cell(cell: str) -> str:
    """Return the name of a cell.

    Raises:
        ValueError: there is no such cell.
    """
    if cell not in STRUCTURED:
        raise ValueError(f"cell {cell!r} is unknown: use one of {', '.join(STRUCTURED)}")
    return cell


def run(
    layers: nn.Module, x: Tensor, state: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run layers of any cell on ``[T, B, D]``, with its state as a tuple.

    Args:
        layers: torch's own, or a drop-in.
        state: (h, c) of an LSTM, (h,) of a GRU, ``[layers * directions, B, H]`` each; None: zeros.

    Returns:
        The output ``[T, B, H]`` and the final state, a tuple too.
    """
    alone = isinstance(layers, nn.GRU)  # it takes and gives h alone
    given = state[0] if alone and state is not None and len(state) == 1 else state
    y, final = layers(x, given)  # which refuses another cell's state
    return y, (final,) if alone else tuple(final)
