"""The operands of a product under autocast, and what the native kernels take in their place."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opennmt_sd.ops.autocast import LOWERED, autocast_dtype, cast, lowered, off
from opennmt_sd.ops.engines import runs_natively


class Operands(NamedTuple):
    """Tensors, a context in which autocast does nothing more, and whether the kernels lower them:
    a field of the records that an engine takes."""

    context: AbstractContextManager[Any]
    tensors: list[Any]
    lowers: bool


def operands(x: Tensor, *others: Tensor | None) -> Operands:
    """Return the operands of a product in the dtype that autocast asks for.

    The native kernels round to bfloat16 what they multiply, and nothing else: they take float32,
    so that no weight is written down twice.
    """
    dtype = autocast_dtype(x.device.type)
    if dtype != torch.bfloat16 or x.dtype not in LOWERED or not runs_natively(x, dtype):
        context, tensors = lowered(x, *others)
        return Operands(context, tensors, False)
    return Operands(off(x.device.type), cast((x, *others), torch.float32), True)
