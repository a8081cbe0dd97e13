"""What a choice holds for: the card, what is computed, and the sizes that times depend on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from opennmt_sd.compat import tf32
from opennmt_sd.ops.autocast import autocast_dtype
from opennmt_sd.ops.calibration.devices import DEVICES


class Key(NamedTuple):
    """What a choice holds for.

    Args:
        machine: the card and the versions.
        what: what is computed, in words: the cell, its direction, packed or not.
        sizes: its widths, such as D and N.
        steps, samples, tenths: buckets of T and of B, and the share kept in tenths.
        dtype, autocast: what the input is of, and what autocast makes of it.
        precision: of float32 products, and of recurrent layers.
        gradients: for each operand whether one is needed.
    """

    machine: str
    what: str
    sizes: tuple[int, ...]
    steps: int
    samples: int
    tenths: int
    dtype: torch.dtype
    autocast: torch.dtype | None
    precision: tuple[str, str]
    gradients: tuple[bool, ...]

    def text(self) -> str:
        """Return the same as one line, for files and logs: other keys have other texts."""
        dtype = _name(self.dtype) + (f" as {_name(self.autocast)}" if self.autocast else "")
        return (
            f"{self.what}, {' x '.join(map(str, self.sizes))}, T {_range(self.steps)}, "
            f"B {_range(self.samples)}, {self.tenths / 10:g} kept, {dtype} "
            f"({'/'.join(self.precision)}), gradients {''.join('ny'[g] for g in self.gradients)}; "
            f"{self.machine}"
        )


def key_of(
    what: str, x: Tensor, others: tuple[Tensor | None, ...], sizes: tuple[int, ...], T: int, B: int,
    share: float,
) -> Key:  # fmt: skip
    """Return the key of a computation.

    Args:
        x: its input, on one of :data:`DEVICES`.
        others: what else may need a gradient.
        T, B: steps, and samples of the first one.
        share: how much is kept, in [0, 1].
    """
    device, graph = x.device, torch.is_grad_enabled()
    gradients = [graph and o is not None and o.requires_grad for o in (x, *others)]
    return Key(
        DEVICES[device.type].name(device), what, sizes, T.bit_length(), B.bit_length(),
        round(share * 10), x.dtype, autocast_dtype(device.type), tf32(), tuple(gradients),
    )  # fmt: skip


def _range(bits: int) -> str:
    """Return the whole numbers of so many bits: ``32-63``."""
    least, most = 1 << bits >> 1, (1 << bits) - 1
    return f"{least}-{most}" if most > least else f"{most}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
