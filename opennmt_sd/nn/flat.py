"""Weights of recurrent layers as cuDNN wants them: those of one call in one buffer of their own.

Otherwise each call copies all of them, and warns. A buffer that serves several layers does not
serve one of them: its biases stand behind all matrices.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from opennmt_sd.compat import flat_weights, is_compiling

Layout = tuple[bool, tuple[int, ...]]


def wanted(x: Tensor) -> bool:
    """Return whether layers on x may run in cuDNN."""
    return x.is_cuda


def lay_out(layers: nn.RNNBase, apart: bool) -> None:
    """Lay the weights out, as ``nn.RNNBase.flatten_parameters`` does: where cuDNN is, and can.

    Args:
        apart: each layer in a buffer of its own, since each is a call of its own.
    """
    weights, names = flat_weights(layers)
    if len(weights) != len(names) or not layers.num_layers:
        return
    count = 1 if apart else layers.num_layers  # layers of a call
    size = len(names) // layers.num_layers
    width = layers.hidden_size * (2 if layers.bidirectional else 1)
    for k in range(0, layers.num_layers, count):
        part = slice(k * size, (k + count) * size)
        of_call = SimpleNamespace(
            _flat_weights=weights[part], _flat_weights_names=names[part], num_layers=count,
            input_size=width if k else layers.input_size, hidden_size=layers.hidden_size,
            proj_size=0, mode=layers.mode, bias=layers.bias, batch_first=layers.batch_first,
            bidirectional=layers.bidirectional,
        )  # fmt: skip
        nn.RNNBase.flatten_parameters(of_call)  # type: ignore[arg-type] # all that it asks for
    layers.__dict__["_laid_out"] = _layout(layers, apart)


def keep_laid_out(layers: nn.RNNBase, apart: bool) -> None:
    """Lay the weights out again where they have moved since, or calls have changed: a copy of the
    module, a pattern that was set."""
    if is_compiling() or nn.utils.parametrize.is_parametrized(layers):
        return  # parametrized weights are made anew at each call
    if layers.__dict__.get("_laid_out") != _layout(layers, apart):
        lay_out(layers, apart)


def joined(layers: list[list[list[Tensor]]]) -> list[list[list[Tensor]]]:
    """Return the weights of one call in one buffer, made for this call.

    Args:
        layers: of each layer and direction weight_ih, weight_hh and perhaps biases.
    """
    weights = [w for layer in layers for direction in layer for w in direction]
    ordered = sorted(range(len(weights)), key=lambda n: -weights[n].dim())  # stable: matrices first
    buffer = torch.cat([weights[n].flatten() for n in ordered])
    parts = buffer.split([weights[n].numel() for n in ordered])
    placed = {n: part.view(weights[n].shape) for n, part in zip(ordered, parts)}
    numbers = iter(range(len(weights)))
    return [[[placed[next(numbers)] for _ in direction] for direction in layer] for layer in layers]


def _layout(layers: nn.RNNBase, apart: bool) -> Layout | None:
    """Return how and where the weights lie; None where nobody knows."""
    weights, _ = flat_weights(layers)
    if any(type(w) not in (Tensor, nn.Parameter) for w in weights):
        return None
    return apart, tuple(w.data_ptr() for w in weights)  # type: ignore[union-attr]
