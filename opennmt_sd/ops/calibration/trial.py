"""A trial of two ways of one computation: whether they agree, and how long each takes.

It runs on views of the operands without their history: gradients, hooks, the graph and the state
of the random number generators stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from opennmt_sd.compat import tree_leaves, tree_map, without_dispatch_modes
from opennmt_sd.ops.autocast import autocast_dtype
from opennmt_sd.ops.calibration.devices import Device

WARM, ROUNDS = 2, 9
BETTER = 0.95  # what our time must stay below, of the dense one

# The largest error of an element, as a part of the largest element: many times what rounding gives,
# and far below what a wrong unit, step or gate gives.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
TF32 = 2e-2  # the least where float32 is multiplied in TF32


class Ways(NamedTuple):
    """Two ways of one computation.

    Args:
        operands: tensors, in tuples and lists as both ways take them.
        dense: gives tensors, in tuples; float ones are compared.
        ours: the same, another way.
    """

    operands: Any
    dense: Callable[[Any], Any]
    ours: Callable[[Any], Any]


class Times(NamedTuple):
    """Medians in milliseconds, forward and backward together."""

    dense: float
    ours: float

    @property
    def better(self) -> bool:
        return self.ours < BETTER * self.dense


class WrongResultError(Exception):
    """The two ways do not agree. The text says by how much."""


def check(ways: Ways, device: Device, tolerance: float) -> None:
    """Run both ways once, and compare results and every gradient.

    Raises:
        WrongResultError: they do not agree. Anything else: what a way itself raises.
    """
    with _apart(ways, device):
        wants, gots = (_run(way, ways.operands) for way in (ways.dense, ways.ours))
        if len(wants) != len(gots):
            raise WrongResultError(f"{len(gots)} results and gradients, not {len(wants)}")
        for want, got in zip(wants, gots):
            _compare(want, got, tolerance)


def timed(ways: Ways, device: Device) -> Times:
    """Time both ways, in turn, after :func:`check`. The device is waited for at the end alone."""
    both = ways.dense, ways.ours
    with _apart(ways, device):
        for _ in range(WARM):
            for way in both:
                _run(way, ways.operands)
        marks = [[_marked(way, ways.operands, device) for way in both] for _ in range(ROUNDS)]
        times = [[device.between(*pair) for pair in round_] for round_ in marks]
    return Times(*(median(column) for column in zip(*times)))


def _marked(way: Callable[[Any], Any], operands: Any, device: Device) -> tuple[Any, Any]:
    start = device.mark()
    _run(way, operands)
    return start, device.mark()


def _run(way: Callable[[Any], Any], operands: Any) -> list[Tensor]:
    """Run forward and, where gradients are needed, backward; return float results and gradients."""
    graph = torch.is_grad_enabled()
    inputs: list[Tensor] = []

    def own(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        leaf = x.detach()
        if graph and x.requires_grad:
            inputs.append(leaf.requires_grad_())
        return leaf

    found = tree_leaves(way(tree_map(own, operands)))
    results = [x for x in found if isinstance(x, Tensor) and x.is_floating_point()]
    roots = [x for x in results if x.requires_grad]
    if not (inputs and roots):
        return results
    gradients = torch.autograd.grad(
        roots, inputs, [_cotangent(x) for x in roots], allow_unused=True
    )
    whole = (torch.zeros_like(x) if d is None else d for x, d in zip(inputs, gradients))
    return [*(x.detach() for x in results), *whole]


def _cotangent(x: Tensor) -> Tensor:
    """Return something like noise, in [-1, 1], without a generator."""
    count = torch.arange(1, x.numel() + 1, device=x.device, dtype=torch.float32)
    return (count * 1.7).sin().to(x.dtype).view(x.shape)


def _compare(want: Tensor, got: Tensor, tolerance: float) -> None:
    if (want.shape, want.dtype) != (got.shape, got.dtype):
        raise WrongResultError(
            f"{got.dtype} {list(got.shape)}, not {want.dtype} {list(want.shape)}"
        )
    if not want.numel():
        return
    wide = torch.promote_types(want.dtype, torch.float32)
    error, size = ((got.to(wide) - want.to(wide)).abs().max().item(), want.abs().max().item())
    if not math.isfinite(size):
        raise WrongResultError("there are infinite values or NaN: nothing can be compared")
    if not error <= tolerance * size:  # NaN too
        raise WrongResultError(f"results differ by {error:.2g}, of values up to {size:.2g}")


@contextmanager
def _apart(ways: Ways, device: Device) -> Iterator[None]:
    """Keep from a trial what surrounds it: it leaves no trace."""
    x = next(x for x in tree_leaves(ways.operands) if isinstance(x, Tensor))
    kind, lower = x.device.type, autocast_dtype(x.device.type)
    with ExitStack() as stack:
        stack.enter_context(device.waiting_allowed())
        stack.enter_context(without_dispatch_modes())
        # Whoever looks at what a forward pass saves (checkpointing) must not see the trial's.
        stack.enter_context(saved_tensors_hooks(lambda saved: saved, lambda saved: saved))
        if lower is not None:  # else autocast keeps a copy of each weight of each run
            stack.enter_context(torch.autocast(kind, dtype=lower, cache_enabled=False))
        yield
