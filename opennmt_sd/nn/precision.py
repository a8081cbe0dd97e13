"""Precision: the dtype a recurrent layer gives, the one it is computed in, and the engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.ops.autocast import LOWERED, autocast_dtype, off
from opennmt_sd.ops.cpu import bfloat16


def result_dtype(x: Tensor, state: Tensor, on_cpu: bool) -> torch.dtype:
    """Return the dtype of what a layer gives, as torch's own has it.

    It is the input's; under autocast, autocast's; but where autocast does not know the layer, whose
    products alone it lowers then, it is the state's.

    Args:
        state: the last tensor of it: c of an LSTM.
        on_cpu: whether autocast knows the layer on a CPU: not packed rows, nor a GRU.
    """
    if not autocasts(x):
        return x.dtype
    if x.device.type == "cpu" and not on_cpu:
        return state.dtype
    return autocast_dtype(x.device.type) or x.dtype


def stock_dtype(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of what torch's own layers give, where ours would give ``dtype``: on a GPU
    autocast makes float16 of what enters cuDNN, also where it is to be bfloat16."""
    return torch.float16 if x.is_cuda and autocasts(x) else dtype


def computed_in(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return what a recurrence that gives ``dtype`` is computed in.

    float16 has no kernels, and step by step is many times slower than float32's.
    """
    if not ops.left_to_torch() or dtype not in LOWERED or ops.has_kernels(x, dtype):
        return dtype
    return torch.float32 if ops.has_kernels(x, torch.float32) else dtype


def autocasts(x: Tensor) -> bool:
    """Return whether autocast changes what is computed with x."""
    return autocast_dtype(x.device.type) is not None and x.dtype in LOWERED


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which autocast changes nothing."""
    return off(x.device.type) if autocasts(x) else nullcontext()


def casting(
    x: Tensor, computed: torch.dtype, dtype: torch.dtype
) -> tuple[bool, AbstractContextManager[Any]]:
    """Return whether a layer that is computed in one dtype and gives another casts its operands,
    and the context of its ops.

    Autocast is left to those whose kernels lower what they multiply: also of layers that it does
    not know, whose products alone it lowers, if the processor multiplies so.
    """
    lower = autocast_dtype(x.device.type)
    lowers = lower is not None and x.dtype in LOWERED and ops.has_kernels(x, lower)
    if lowers and (lower == computed or bfloat16.known()):
        return False, nullcontext()
    return autocasts(x) or computed != dtype, without_autocast(x)


def engine_of(model: nn.Module) -> str:
    """Return what a model's dropped products run on, in words for a log.

    Call it under the autocast that the model will run under.

    Returns:
        ``"cpu"``, or say ``"cpu in bfloat16, products in bfloat16"`` or ``"portable in float16,
        recurrent dropout on cpu in float32"``.
    """
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = autocast_dtype(weight.device.type) if autocasts(weight) else weight.dtype
    dtype = dtype or weight.dtype
    text = ops.engine_for(weight.device, weight.dtype)
    native = text == "cpu"
    if dtype != torch.float32:
        text += f" in {_name(dtype)}"
    if native and dtype in (torch.float32, torch.bfloat16):
        text += bfloat16.in_words(dtype == torch.bfloat16)
    recurrent = computed_in(weight, dtype)
    if recurrent != dtype:
        text += f", recurrent dropout on cpu in {_name(recurrent)}"
    return text


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
