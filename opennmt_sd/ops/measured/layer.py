"""Whether a whole recurrent layer in training is faster by Triton's kernels than by cuDNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opennmt_sd.ops.calibration import Ways, chosen, key_of, measurable
from opennmt_sd.ops.engines import forced
from opennmt_sd.ops.measured.faster import has_triton, kernels_alone


class Layer(NamedTuple):
    """A layer without recurrent dropout, which torch and we can both compute.

    Args:
        what: the cell, its directions, packed or not, in words.
        T, B: steps, and samples of the first one.
        sizes: D and H.
        weights: all of them.
        operands: tensors, in tuples and lists.
        stock, ours: give the results for operands.
    """

    what: str
    T: int
    B: int
    sizes: tuple[int, ...]
    weights: tuple[Tensor, ...]
    operands: Any
    stock: Callable[[Any], Any]
    ours: Callable[[Any], Any]


def faster_by_kernels(x: Tensor, layer: Callable[[], Layer]) -> bool:
    """Return whether a layer on x goes to our op, with :func:`kernels_alone`, as was measured on
    this device; never where no gradients are needed."""
    if not torch.is_grad_enabled() or forced() is not None or not x.numel():
        return False
    if not (measurable(x) and has_triton(x)):
        return False
    asked = layer()

    def by_kernels(given: Any) -> Any:
        with kernels_alone():
            return asked.ours(given)

    key = key_of(f"layer {asked.what}", x, asked.weights, asked.sizes, asked.T, asked.B, 1.0)
    ways = Ways(operands=asked.operands, dense=asked.stock, ours=by_kernels)
    return chosen(key, x, rule=False, ways=lambda: ways)
