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

from opennmt_sd.dropout import Keep, KeepMask
from opennmt_sd.ops.calibration import Key, Ways, chosen, key_of, measurable
from opennmt_sd.ops.dense import recurrence as loop
from opennmt_sd.ops.dense.cells import Cell, State
from opennmt_sd.ops.dense.recurrence import Recurrence

OLDEST = 3, 3  # of Triton: it can be told that all programs must be on the device at once
DTYPES = torch.float32, torch.float16, torch.bfloat16  # that Triton multiplies at speed

_alone = ContextVar("kernels alone", default=False)


def recurrence(
    cell: Cell, gates_x: Tensor, weight_hh: Tensor, bias_h: Tensor | None, state: State,
    keep: Keep | None, batch_sizes: Tensor | None, reverse: bool,
) -> tuple[Tensor, State]:  # fmt: skip
    """Do what :func:`opennmt_sd.ops.dense.recurrence.recurrence` does, the faster way."""
    given = cell, gates_x, weight_hh, bias_h, state, keep, batch_sizes, reverse
    suits = measurable(gates_x) and gates_x.dtype in DTYPES
    kernels = triton_for(gates_x.device) if suits else None
    if kernels is None:
        return loop.recurrence(*given)
    if _alone.get():
        return kernels(*given)

    def ways() -> Ways:
        def by(run: Recurrence) -> Callable[[Any], Any]:
            return lambda operands: run(cell, *operands, keep, batch_sizes, reverse)

        return Ways((gates_x, weight_hh, bias_h, state), by(loop.recurrence), by(kernels))

    ours = chosen(_key(*given), gates_x, rule=True, ways=ways)
    return (kernels if ours else loop.recurrence)(*given)


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


def _key(
    cell: Cell, gates_x: Tensor, weight_hh: Tensor, bias_h: Tensor | None, state: State,
    keep: Keep | None, batch_sizes: Tensor | None, reverse: bool,
) -> Key:  # fmt: skip
    H, B = weight_hh.shape[1], state[0].shape[0]
    T = len(gates_x) if batch_sizes is None else len(batch_sizes)
    what = f"recurrence {type(cell).__name__}{' reversed' if reverse else ''}"
    what += "" if batch_sizes is None else " packed"
    if keep is not None:
        what += " one set" if keep.steps == 1 else ""
        each = isinstance(keep, KeepMask) and not keep.shared
        what += " by sample" if each else ""
    share = 1.0 if keep is None else 1 / keep.scale
    return key_of(what, gates_x, (weight_hh, bias_h, *state), (H,), T, B, share)


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
