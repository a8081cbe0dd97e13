"""Different keep sets on every rank of a data-parallel run."""

from __future__ import annotations

import hashlib
from argparse import Namespace

import torch


def generator_for(opt: Namespace) -> torch.Generator | None:
    """Make a generator of this process's own, where it is one of several.

    The toolkits seed all ranks alike, so torch's default generator would drop the same units
    on every rank.

    Returns:
        None where training is not distributed (torch's default generator then serves); else a
        CPU generator seeded from the seed (``opt.seed``, or where that is not set torch's own)
        and the rank.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    seed = getattr(opt, "seed", -1)
    if seed <= 0:  # the toolkits' "not set"
        seed = torch.initial_seed()
    # Hashed, since torch's CPU generator reads 32 bits of a seed and no more: neighbouring pairs
    # of seed and rank must not meet.
    digest = hashlib.sha256(f"{seed} {torch.distributed.get_rank()}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
