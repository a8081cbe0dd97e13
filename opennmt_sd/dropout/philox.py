"""Random draws that are the same with or without the native module, on every machine.

A draw takes one seed from torch's CPU generator; the rest is Philox4x32-10, which turns (seed,
counter) into random bits: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
Every tensor of a draw is made on the CPU, by name: torch's default device may be another.
The ops are known to ``torch.compile``; :mod:`opennmt_sd.ops.cpu` brings a native form of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.compat import KNOWS_OPS, backward_pass, is_compiling, is_unwatched

library = torch.library.Library("opennmt_sd", "FRAGMENT")
_implemented: dict[str, Any] = {}

WORD = 0xFFFFFFFF  # of 32 bits; torch has no unsigned arithmetic, so they live in int64
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def random_bits(seed: int, n: int) -> Tensor:
    """Return int64 ``[n]``, uniform in [0, 2^32): element w * blocks + i is word w of block i."""
    blocks = -(-n // 4)
    counter = torch.arange(blocks, dtype=torch.int64, device="cpu")
    zeros = torch.zeros_like(counter)
    a, b, c, d = counter & WORD, counter >> 32, zeros, zeros
    key = [seed & WORD, seed >> 32 & WORD]
    for _ in range(ROUNDS):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]  # modulo 2^64: all bits are there
        a, b, c, d = (
            (second >> 32 & WORD) ^ b ^ key[0], second & WORD,
            (first >> 32 & WORD) ^ d ^ key[1], first & WORD,
        )  # fmt: skip
        key = [(k + w) & WORD for k, w in zip(key, WEYL)]
    return torch.cat([a, b, c, d])[:n]


def threshold(p: float) -> int:
    """Return the number that the 32 bits of a unit must not be below for it to be kept."""
    return round(p * 2**32)


def compact(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return idx int32 ``[S, D]`` and count int32 ``[S]`` of a boolean mask ``[S, D]``: kept
    units first, then the dropped ones, both ascending."""
    kept, dropped = mask.cumsum(1), (~mask).cumsum(1)  # ranks, from 1
    count = mask.sum(1, keepdim=True)
    place = torch.where(mask, kept, count + dropped) - 1  # [S, D]
    units = torch.arange(mask.shape[1], dtype=torch.int32, device=mask.device)
    idx = torch.empty_like(mask, dtype=torch.int32).scatter_(1, place, units.expand_as(mask))
    return idx, count.squeeze(1).to(torch.int32)


def draw_seed(generator: torch.Generator | None) -> Tensor:
    """Draw int64 ``[1]`` from a generator, or torch's default CPU generator.

    One of torch's own ops, which compilers know to be random: two calls are two draws.

    Raises:
        RuntimeError: a draw from a generator in a backward pass, which is activation checkpointing
            that computes a forward pass once more. torch puts back its own generators for that, and
            no other: the sets, and the gradients with them, would not be those of the first time.
    """
    if generator is not None and not is_compiling() and backward_pass() >= 0:
        raise RuntimeError(
            "a forward pass that is computed again in the backward pass (activation checkpointing) "
            "cannot draw from a generator of its own: the sets would be others, and the gradients "
            "wrong. Set module.generator = None: torch's default generator is put back for it"
        )
    return torch.randint(2**63 - 1, (1,), generator=generator, device="cpu")


def mask_of(seed: Tensor, shape: Sequence[int], p: float) -> Tensor:
    return (random_bits(int(seed), math.prod(shape)) >= threshold(p)).view(*shape)


def sets_of(seed: Tensor, S: int, D: int, p: float) -> tuple[Tensor, Tensor]:
    return compact(mask_of(seed, (S, D), p))


def exact_sets_of(seed: Tensor, S: int, D: int, k: int) -> tuple[Tensor, Tensor]:
    bits = random_bits(int(seed), S * D).view(S, D)
    first = bits.argsort(dim=1, stable=True)[:, :k]
    return compact(torch.zeros((S, D), dtype=torch.bool, device="cpu").scatter_(1, first, True))


def draw_exact_mask(seed: Tensor, S: int, D: int, k: int) -> Tensor:
    """Return what :data:`draw_exact_sets` keeps as a boolean mask ``[S, D]``."""
    idx, _ = draw_exact_sets(seed, S, D, k)
    mask = idx.new_zeros((S, D), dtype=torch.bool)  # under vmap a batch of them, as idx is
    return mask.scatter_(1, idx[:, :k].long(), True)


def factors_for(
    x: Tensor, seed: Tensor, shape: tuple[int, ...], p: float, scale: float
) -> Tensor | None:
    """Return what a mask of a seed multiplies x by, the scale or zero; None where the native form
    of the draws cannot, or a product would make NaN of what is dropped."""
    make = _implemented.get("factors_for")
    return None if make is None else make(x, seed, shape, p, scale)


def implement(name: str, function: Any, key: str = "CPU") -> None:
    """Let an op of :data:`library` run a function, which is also called past the dispatcher."""
    library.impl(name, function, key)
    provide(name, function)


def provide(name: str, function: Any) -> None:
    """Let a function of this module, which is no op, run another."""
    _implemented[name] = function


def _op(schema: str, function: Any, fake: Any) -> Any:
    name = schema.split("(", maxsplit=1)[0]
    library.define(schema)
    implement(name, function, "CompositeExplicitAutograd")
    if KNOWS_OPS:
        torch.library.register_fake(f"opennmt_sd::{name}", fake, lib=library)
    op = getattr(torch.ops.opennmt_sd, name).default

    def draw(*given: Any) -> Any:  # the dispatcher takes longer than a small draw
        return _implemented[name](*given) if is_unwatched() else op(*given)

    return draw


def _int32(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int32, device="cpu")


# boolean: each kept with probability 1 - p.
draw_mask = _op(
    "draw_mask(Tensor seed, SymInt[] shape, float p) -> Tensor",
    mask_of,
    lambda seed, shape, p: torch.empty(shape, dtype=torch.bool, device="cpu"),  # noqa: ARG005
)
# idx and count of such a mask [S, D].
draw_sets = _op(
    "draw_sets(Tensor seed, SymInt S, SymInt D, float p) -> (Tensor, Tensor)",
    sets_of,
    lambda seed, S, D, p: (_int32(S, D), _int32(S)),  # noqa: ARG005
)
# idx [S, D] and count [S] of the k units whose bits are the smallest; of equal ones the first.
draw_exact_sets = _op(
    "draw_exact_sets(Tensor seed, SymInt S, SymInt D, SymInt k) -> (Tensor, Tensor)",
    exact_sets_of,
    lambda seed, S, D, k: (_int32(S, D), _int32(S)),  # noqa: ARG005
)
