"""From one long text to batches: parallel streams, cut into segments one behind the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from opennmt_sd.lm.text import CorpusError
from opennmt_sd.training.seeds import derive


class Batch(NamedTuple):
    """A segment of all streams: ``ids`` and, one word later, ``targets``; int64 ``[T, B]`` each."""

    ids: Tensor
    targets: Tensor


def streams(
    text: Tensor,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    name: str = "the text",
    setting: str = "batch_size",
    unit: str = "words",
) -> Tensor:
    """Cut a text into streams of equal length, side by side; words that fill no row are left out.

    Args:
        text: int64 ``[N]``.
        batch_size: B, streams of this rank.
        rank, world_size: of this process and how many there are; the text is cut into
            ``batch_size * world_size`` streams, and each rank reads its own B.
        name, setting, unit: what the text, the batch size and the words are called, for the error.

    Returns:
        A view ``[N // (B * world_size), B]``: stream b is column b.

    Raises:
        CorpusError: the text has fewer than two words a stream.
        ValueError: a batch size below 1, or a rank outside the world.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, {world_size}) (the processes), got {rank}")
    count = batch_size * world_size
    length = len(text) // count
    if length < 2:
        processes = f" in {world_size} processes" if world_size > 1 else ""
        raise CorpusError(
            f"{name} has {len(text):,} {unit} with <eos>: too few for {setting} "
            f"{batch_size}{processes}, which reads {count} streams of two {unit} or more "
            f"({2 * count:,}). Take a longer text, or {setting} "
            f"{max(len(text) // (2 * world_size), 1):,} at most"
        )
    columns = text[: count * length].view(count, length)
    mine = columns[rank * batch_size : (rank + 1) * batch_size]
    return mine.t()  # [length, B]


def segments(length: int, unroll: int) -> list[tuple[int, int]]:
    """Say where each segment begins and how long it is: ``unroll`` steps, the last what is left.

    Args:
        length: of a stream, in words; its first word is no target.
        unroll: T, at least 1.
    """
    steps = length - 1
    return [(begin, min(unroll, steps - begin)) for begin in range(0, steps, unroll)]


def random_segments(length: int, unroll: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """Cut segments of random length, elsewhere in every epoch.

    The length is normal with mean ``unroll`` (in 1 of 20 segments half of it) and standard
    deviation 5, and at least 5. One (seed, epoch) gives one plan, on every rank.

    Source: Merity et al., "Regularizing and Optimizing LSTM Language Models", ICLR 2018,
    section 5.1.
    """
    generator = torch.Generator().manual_seed(derive(seed, "segments", epoch))
    plan, begin, steps = [], 0, length - 1
    while begin < steps:
        short = torch.rand((), generator=generator, device="cpu")
        shift = torch.randn((), generator=generator, device="cpu")
        mean = unroll / 2 if short < 0.05 else unroll
        T = max(5, math.floor(mean + 5 * float(shift)))
        plan.append((begin, min(T, steps - begin)))
        begin += T
    return plan


class Batches(Sequence[Batch]):
    """The batches of an epoch; batch i is cut when it is asked for.

    Args:
        columns: int64 ``[length, B]``, from :func:`streams`.
        plan: from :func:`segments` or :func:`random_segments`.
    """

    def __init__(self, columns: Tensor, plan: list[tuple[int, int]]) -> None:
        self.columns, self.plan = columns, plan

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, i: int) -> Batch: ...

    @overload
    def __getitem__(self, i: slice) -> Batches: ...

    def __getitem__(self, i: int | slice) -> Batch | Batches:
        if isinstance(i, slice):
            return Batches(self.columns, self.plan[i])
        begin, T = self.plan[i]
        words = self.columns[begin : begin + T + 1].contiguous()
        return Batch(words[:-1], words[1:])
