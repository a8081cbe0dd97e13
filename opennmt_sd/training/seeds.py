"""The generators of a run: seeds that differ by rank, and states that a checkpoint keeps."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Mapping
from typing import Any

import torch


def derive(seed: int, *parts: object) -> int:
    """Derive 32 bits from a seed and what tells its use apart (a rank, an epoch).

    Hashed, since torch's CPU generator reads 32 bits of a seed and no more: neighbouring pairs of
    seed and rank must not meet.
    """
    text = " ".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def seed_all(seed: int) -> None:
    """Seed the generators of torch (CPU and CUDA), Python and, where it is loaded, numpy.

    Args:
        seed: 0 to 2**32 - 1; :func:`derive` gives one.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def rng_state() -> dict[str, Any]:
    """Return where those generators stand: tensors and plain values, fit for a checkpoint."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where :func:`rng_state` found them."""
    torch.set_rng_state(state["torch"])
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    if "numpy" in state and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(tuple(state["numpy"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
