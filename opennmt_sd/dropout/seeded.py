"""A mask that is known by its seed: made where it is used, with the same bits everywhere."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from opennmt_sd.compat import is_compiling, is_eager, is_plain
from opennmt_sd.dropout import on_gpu
from opennmt_sd.dropout.apply import BRANCHES
from opennmt_sd.dropout.keep import KeepMask
from opennmt_sd.dropout.philox import draw_exact_mask, draw_mask, factors_for


class SeededMask(KeepMask):
    """A mask that is drawn when it is asked for: on a GPU by one launch there, and nothing travels.

    Copies, and what ``dataclasses.replace`` makes of it, are masks that are drawn.
    """

    seed: Tensor
    shape: tuple[int, int, int]
    B: int
    p: float
    k: int | None

    def __new__(cls, dense: Tensor, scale: float) -> KeepMask:  # type: ignore[misc] # as it says
        return KeepMask(dense, scale)

    @classmethod
    def of(
        cls, seed: Tensor, shape: tuple[int, int, int], B: int, p: float, scale: float,
        k: int | None = None,
    ) -> SeededMask:  # fmt: skip
        """Return the mask of a seed.

        Args:
            seed: int64 ``[1]``.
            shape: S, how many of the samples differ (1 or B), and D.
            B: samples.
            p, scale: the rate, and what kept values are multiplied by.
            k: how many units each set keeps, of one that samples share; None: each by itself.
        """
        mask: SeededMask = object.__new__(cls)
        known = {"seed": seed, "shape": shape, "B": B, "p": p, "scale": scale, "k": k}
        mask.__dict__.update(known, drawn=None)  # the class is frozen
        return mask

    def apply(self, x: Tensor, batch_sizes: Tensor | None = None) -> Tensor:
        factors = self._small(x, self.shape) if self.shared or batch_sizes is None else None
        if factors is None:
            return super().apply(x, batch_sizes)
        if batch_sizes is not None:
            factors = self._of_rows(factors, batch_sizes, len(x))
        return x * factors

    def apply_alone(self, x: Tensor) -> Tensor:
        factors = self._small(x, self.shape[1:])
        return super().apply_alone(x) if factors is None else x * factors

    def _small(self, x: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """Return what a small x on the CPU is multiplied by; None where it cannot be.

        Several ops, and what lies around them, would take longer than the dropping itself. Whoever
        looks on changes nothing: activation checkpointing asks that a second run saves the same.
        """
        known = self.k is None and self.__dict__["drawn"] is None
        small = known and x.is_cpu and x.numel() < BRANCHES
        if not (small and is_eager() and is_plain(x)):
            return None
        return factors_for(x, self.seed, shape, self.p, self.scale)

    @property
    def dense(self) -> Tensor:
        S, _, D = self.shape
        return self.narrow().expand(S, self.B, D)

    def narrow(self) -> Tensor:
        found: Tensor | None = self.__dict__["drawn"]
        if found is None:
            # An inference tensor could not be saved for backward later. The context takes time.
            inferring = is_compiling() or torch.is_inference_mode_enabled()
            with torch.inference_mode(False) if inferring else nullcontext():
                found = self._draw()
            self.__dict__["drawn"] = found
        return found

    def _draw(self) -> Tensor:
        if self.k is None:
            return draw_mask(self.seed, self.shape, self.p)
        S, _, D = self.shape
        return draw_exact_mask(self.seed, S, D, self.k)[:, None]

    def __reduce__(self) -> tuple[type[KeepMask], tuple[Tensor, float]]:
        return KeepMask, (self.dense, self.scale)

    def rescaled(self, scale: float) -> SeededMask:
        return self.of(self.seed, self.shape, self.B, self.p, scale, self.k)

    @property
    def steps(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def samples(self) -> int:
        return self.B

    @property
    def shared(self) -> bool:
        return self.shape[1] == 1

    def factors(self, x: Tensor) -> Tensor:
        drawn = self._drawn(self.scale, 0.0, x.dtype, x.device)
        return super().factors(x) if drawn is None else drawn

    def dropped(self, device: torch.device) -> Tensor:
        drawn = self._drawn(0.0, 1.0, torch.uint8, device)
        return super().dropped(device) if drawn is None else drawn.view(torch.bool)

    def _drawn(
        self, kept: float, dropped: float, dtype: torch.dtype, device: torch.device
    ) -> Tensor | None:
        """Return ``[S, 1 or B, D]`` with one of two values for each unit; None where the mask has
        to be drawn on the CPU."""
        if self.__dict__["drawn"] is not None:
            return None  # it is there already
        values = (kept, dropped)
        return on_gpu.draw(self.seed, self.shape, self.p, values, dtype, device, self.k)
