"""Whether a layer that torch has too runs on our kernels, since they are faster on this GPU."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.nn.base import NOTHING
from opennmt_sd.nn.dropped_input import Operands, in_words
from opennmt_sd.nn.states import State


class Module(Protocol):
    """What is asked of a recurrent module: itself, and both ways through one of its layers."""

    training: bool
    mode: str
    hidden_size: int

    def _dropped(self, *given: Any) -> tuple[Tensor, State]: ...
    def _layer(self, *given: Any) -> tuple[Tensor, State]: ...


def by_kernels(
    module: Module, operands: Operands, sizes: Tensor | None, T: int, B: int, dtype: torch.dtype
) -> bool:
    """Return whether ours is faster than torch's, where that is measured: in training, on a GPU.

    Args:
        operands: x, the state, and the weights of the layers of a call.
    """
    x, _, layers = operands
    if not (module.training and ops.measurable(x)) or len(layers) != 1:
        return False

    def stock(given: Operands) -> tuple[Tensor, State]:
        return module._dropped(given, None, False, sizes, dtype)

    def ours(given: Operands) -> tuple[Tensor, State]:
        x, state, layers = given
        return module._layer(x, NOTHING, None, state, layers[0], sizes, T, B, dtype)

    def layer() -> ops.Layer:
        what = in_words(module.mode, layers, sizes)
        weights = tuple(weight for direction in layers[0] for weight in direction)
        widths = x.shape[-1], module.hidden_size
        return ops.Layer(what, T, B, widths, weights, operands, stock, ours)

    return ops.faster_by_kernels(x, layer)
