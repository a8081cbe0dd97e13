"""What torch's own recurrent layers are given of an input that is dropped from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.dropout import DropoutPattern, Keep, KeepSets
from opennmt_sd.nn import flat
from opennmt_sd.nn.states import State

Layers = list[list[list[Tensor]]]  # weights of each layer and direction
Operands = tuple[Tensor, State, Layers]  # what layers are called with


def dropped_input(
    x: Tensor, keep: Keep | None, layers: Layers, sizes: Tensor | None, gathers: bool
) -> tuple[Tensor, Layers]:
    """Return the input of torch's own layers, and their weights: x masked, or what all steps keep
    of it and the first layer's columns for that."""
    if keep is None:
        return x, layers
    if not (gathers and isinstance(keep, KeepSets) and keep.steps == 1 and keep.counts[0]):
        return keep.apply(x, sizes), layers
    of_inputs = [weight_ih for weight_ih, *_ in layers[0]]
    x, columns = ops.gathered(x, keep, *of_inputs)
    first = [[column, *rest] for column, (_, *rest) in zip(columns, layers[0])]
    layers = [first, *layers[1:]]
    return x, flat.joined(layers) if flat.wanted(x) else layers


def gathers_input(
    mode: str, operands: Operands, drops: DropoutPattern | Keep, sizes: Tensor | None,
    T: int, B: int, run: Callable[..., Any],
) -> bool:  # fmt: skip
    """Return whether torch's own layers run on what all steps keep of their input.

    Args:
        mode: the cell, as ``nn.RNNBase`` names it.
        drops: what is dropped of the input.
        run: runs them; see :class:`opennmt_sd.ops.Shared`.
    """
    x, _, layers = operands
    weight_ih, weight_hh, *_ = layers[0][0]

    def shared() -> ops.Shared:
        widths = x.shape[-1], weight_hh.shape[1]
        return ops.Shared(in_words(mode, layers, sizes), drops, T, B, widths, operands, run)

    return ops.gathers(x, weight_ih, shared)


def in_words(mode: str, layers: Layers, sizes: Tensor | None) -> str:
    """Return what a call of layers is, as far as its time depends on it."""
    words = [mode, "packed"] if sizes is not None else [mode]
    words += ["both directions"] if len(layers[0]) > 1 else []
    words += [f"{len(layers)} layers"] if len(layers) > 1 else []
    return " ".join(words)
