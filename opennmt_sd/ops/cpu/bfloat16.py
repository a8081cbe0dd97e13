"""Whether float32 is multiplied in bfloat16: torch's own switch, and what the processor has.

``torch.set_float32_matmul_precision("medium")``, autocast and tensors of bfloat16 ask for it. A
product then rounds its operands to bfloat16 as it packs them, and sums in float32; nothing is
stored in bfloat16. The instruction is AVX512_BF16's (``vdpbf16ps``): without it, or at the half
rate that Intel's processors have it at, float32 is faster.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from opennmt_sd._compile import constant
from opennmt_sd.compat import bfloat16_products
from opennmt_sd.ops.cpu.binding import native

_emulated = False


@constant
def known() -> bool:
    """Return whether the kernels multiply in bfloat16 where that is asked for."""
    module = native()
    return module is not None and (module.has_bfloat16() or _emulated)


def used(asked: bool) -> bool:
    """Return whether a product of float32 is made in bfloat16.

    Args:
        asked: by its tensors, or by autocast. Torch's switch asks for all.
    """
    if not (asked or bfloat16_products()):
        return False
    if known():
        return True
    if not asked:
        _tell()
    return False


def in_words(asked: bool) -> str:
    """Return in what float32 is multiplied, for a log: ``""`` where nothing else was asked for."""
    if not (asked or bfloat16_products()):
        return ""
    return ", products in bfloat16" if known() else f", products in float32 ({MISSING})"


MISSING = "bfloat16 is no faster on this processor"


@functools.cache
def _tell() -> None:
    warnings.warn(
        'torch.set_float32_matmul_precision("medium") asks for products in bfloat16, and '
        f"{MISSING}: opennmt_sd multiplies float32 in float32",
        RuntimeWarning,
        stacklevel=2,
    )


@contextmanager
def emulated() -> Iterator[None]:
    """Multiply in bfloat16 on any processor, slowly: for tests of the kernels."""
    global _emulated  # noqa: PLW0603
    before, _emulated = _emulated, True
    try:
        yield
    finally:
        _emulated = before
