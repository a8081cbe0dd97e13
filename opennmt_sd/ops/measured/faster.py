"""A recurrence with structured dropout, by Triton's kernels or by the loop of the dense engine."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.ops.calibration import Key, Ways, chosen, key_of, measurable
from opennmt_sd.ops.dense import recurrence as loop
from opennmt_sd.ops.dense.cells import State
from opennmt_sd.ops.dense.recurrence import Operands, Recurrence

OLDEST = 3, 3  # of Triton: it can be told that all programs must be on the device at once
DTYPES = torch.float32, torch.float16, torch.bfloat16  # that Triton multiplies at speed

_alone = ContextVar("kernels alone", default=False)


def recurrence(a: Operands) -> tuple[Tensor, State]:
    """Do what :func:`opennmt_sd.ops.dense.recurrence.recurrence` does, the faster way."""
    x = a.gates_x
    suits = measurable(x) and x.dtype in DTYPES
    kernels = triton_for(x.device) if suits else None
    if kernels is None:
        return loop.recurrence(a)
    if _alone.get():
        return kernels(a)
    if chosen(_key(a), x, rule=True, ways=lambda: _ways(a, kernels)):
        return kernels(a)
    return loop.recurrence(a)


def _ways(a: Operands, kernels: Recurrence) -> Ways:
    """Return both, as functions of the tensors that have gradients."""

    def by(run: Recurrence) -> Callable[[Any], Any]:
        def way(tensors: Any) -> Any:
            x, weight_hh, bias_h, state = tensors
            return run(a._replace(gates_x=x, weight_hh=weight_hh, bias_h=bias_h, state=state))

        return way

    tensors = a.gates_x, a.weight_hh, a.bias_h, a.state
    return Ways(operands=tensors, dense=by(loop.recurrence), ours=by(kernels))


@contextmanager
def kernels_alone() -> Iterator[None]:
    """Run every recurrence in the body by kernels, where there are any: it has been decided."""
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def triton_for(device: torch.device) -> Recurrence | None:
    """Return the recurrence by Triton's kernels; None where it is not to be had, with a warning."""
    found = _found(device)
    if isinstance(found, str):
        _tell_of_loop(device.type, found)
        return None
    return found


def has_triton(x: Tensor) -> bool:
    """Return whether there are kernels for a recurrence on x."""
    return x.dtype in DTYPES and not isinstance(_found(x.device), str)


def _found(device: torch.device) -> Recurrence | str:
    """Return the recurrence by Triton's kernels, or why there is none."""
    found = _loaded() if device.type == "cuda" else "it is for CUDA"
    if not isinstance(found, str) and not _capable(device):
        return "the card is too old: it needs a compute capability of 7.0"
    return found


def _key(a: Operands) -> Key:
    H, B, keep = a.weight_hh.shape[1], a.state[0].shape[0], a.keep
    what = f"recurrence {type(a.cell).__name__}{' reversed' if a.reverse else ''}"
    what += "" if a.batch_sizes is None else " packed"
    if keep is not None:
        what += " one set" if keep.steps == 1 else ""
        what += "" if keep.shared else " by sample"
    share = 1.0 if keep is None else 1 / keep.scale
    return key_of(what, a.gates_x, (a.weight_hh, a.bias_h, *a.state), (H,), a.T, B, share)


@functools.cache
def _loaded() -> Recurrence | str:
    """Return Triton's recurrence, or why there is none."""
    try:
        version: str = import_module("triton").__version__
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            return f"it is {version}, and {OLDEST[0]}.{OLDEST[1]} or newer is needed"
        module = import_module("opennmt_sd.ops.triton.recurrence")
    except Exception as error:  # noqa: BLE001 - none, an old one, one that finds no compiler
        return f"{type(error).__name__}: {error}"
    run: Recurrence = module.recurrence
    return run


@functools.cache
def _capable(device: torch.device) -> bool:
    """Return whether Triton knows the card."""
    return torch.cuda.get_device_capability(device) >= (7, 0)


@functools.cache
def _tell_of_loop(device: str, why: str) -> None:
    warnings.warn(
        f"recurrent dropout runs step by step on {device}: Triton, whose kernels do it in a few "
        f"launches, cannot be used ({why}). Without recurrent dropout each layer is one fused call",
        RuntimeWarning,
        stacklevel=2,
    )
