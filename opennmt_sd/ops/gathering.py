"""Whether products are made of the kept columns alone, where all steps share one set (Case IV)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opennmt_sd._compile import traceable
from opennmt_sd.compat import is_compiling
from opennmt_sd.dropout import DropoutPattern, Keep, KeepMask, KeepSets
from opennmt_sd.ops.calibration import Ways, chosen, key_of, measurable
from opennmt_sd.ops.engines import forced, worth_gathering


class Shared(NamedTuple):
    """A computation on an input that may be masked, or of which all steps keep one set.

    Args:
        what: what it is, in words.
        drops: what is dropped: a pattern that is drawn from, or what is kept.
        T, B: steps, and samples of the first one.
        sizes: the widths that its time depends on.
        operands: tensors, in tuples and lists.
        run: gives the results for operands, what is kept (sets, or a mask of the same), and whether
            the rest is left out.
    """

    what: str
    drops: DropoutPattern | Keep
    T: int
    B: int
    sizes: tuple[int, ...]
    operands: tuple[Any, ...]
    run: Callable[[Any, Keep, bool], Any]


@traceable
def gathers(x: Tensor, weight: Tensor, shared: Callable[[], Shared]) -> bool:
    """Return whether the kept columns are gathered: by size, or on other devices than the CPU by
    what is faster there.

    Args:
        x: the rows of a product, ``[.., D]``.
        weight: ``[N, D]``.
        shared: the computation, for devices where it is timed.
    """
    if x.device.type != "cpu" and is_compiling():  # sizes that only a draw knows
        return False
    rule = worth_gathering(x, weight.shape[0])
    if not measurable(x) or forced() is not None or not x.numel():
        return rule
    what, drops, T, B, sizes, operands, run = shared()
    if isinstance(drops, DropoutPattern):
        one_set, share = drops.active and drops.shared, 1 - drops.p
    else:
        one_set, share = isinstance(drops, KeepSets) and drops.steps == 1, 1 / drops.scale
    if not one_set:
        return rule

    def ways() -> Ways:
        kept = drops
        if isinstance(kept, DropoutPattern):
            kept = kept.draw(T, B, x.shape[-1], torch.Generator().manual_seed(0))
        mask = KeepMask(kept.mask().expand(1, B, -1), kept.scale)
        return Ways(operands, lambda o: run(o, mask, False), lambda o: run(o, kept, True))

    key = key_of(f"gathered {what}", x, (weight,), sizes, T, B, share)
    return chosen(key, x, rule=rule, ways=ways)
