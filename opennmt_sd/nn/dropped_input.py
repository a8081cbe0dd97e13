"""What torch's own recurrent layers are given of an input that is dropped from."""

from __future__ import annotations

from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.nn import flat

Layers = list[list[list[Tensor]]]  # weights of each layer and direction


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
