"""Which engine runs: chosen by device and dtype, or forced with :func:`use`."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from opennmt_sd.compat import in_forward_mode, in_transform
from opennmt_sd.ops import cpu, dense, measured, naive, portable
from opennmt_sd.ops.autocast import LOWERED, autocast_dtype
from opennmt_sd.ops.cpu import bfloat16
from opennmt_sd.ops.cpu.binding import (
    has_native,
    outruns_torch,
    require_native,
    warn_if_missing,
)
from opennmt_sd.ops.cpu.kernels import DTYPES
from opennmt_sd.ops.engine import Engine
from opennmt_sd.ops.naive.attention import Memory
from opennmt_sd.ops.naive.stepwise import Weight

ENGINES: dict[str, Engine] = {"naive": naive, "portable": portable, "cpu": cpu, "dense": dense}

NATIVE = (*DTYPES, torch.bfloat16)  # what the cpu engine takes

_forced: str | None = None


class use:  # noqa: N801 - it reads as a verb: use("naive")
    """Force an engine for every op that follows, or for the body of a ``with``.

    In ``torch.func`` (grad, vmap, jvp, ...) and forward mode the naive engine runs all the same.

    Process-wide. Choose before the forward pass: a backward pass stays with the engine that ran
    forward.

    Args:
        name: ``"naive"`` (dense, readable, slow, double backward), ``"portable"`` (compacted),
            ``"cpu"`` (native kernels; float32, float64 and bfloat16 on the CPU, anything else
            runs as it would), ``"dense"`` (torch's own products on a masked input, what a GPU
            runs) or ``"auto"`` (the default: by device and dtype).

    Raises:
        ValueError: no such engine. RuntimeError: ``"cpu"`` where the native module is missing.

    Example::

        with opennmt_sd.ops.use("naive"):
            out, _ = lstm(x)
    """

    def __init__(self, name: str) -> None:
        global _forced  # noqa: PLW0603 - one switch for the process, as documented
        if name != "auto" and name not in ENGINES:
            raise ValueError(
                f"there is no engine {name!r}: use one of auto, {', '.join(sorted(ENGINES))}"
            )
        if name == "cpu":
            require_native()
        self._before = _forced
        _forced = None if name == "auto" else name

    def __enter__(self) -> use:
        return self

    def __exit__(self, *_: Any) -> None:
        global _forced  # noqa: PLW0603
        _forced = self._before


def forced() -> str | None:
    """Return the engine forced with :class:`use`, or None if the choice is automatic.

    In forward mode it is the naive one, which alone knows it; torch's own LSTM does not either.
    """
    return "naive" if in_forward_mode() else _forced


def engine_for(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """Return the name of the engine that runs on this device and dtype.

    Under autocast this is the engine of the dtype that autocast asks for. On a CPU without kernels
    for it that is ``"portable"``, chosen and not forced: modules then multiply densely behind a
    mask, as torch's own do. On any other device it is ``"dense"``.
    """
    kind = torch.device(device).type
    lower = autocast_dtype(kind)
    return _engine_for(kind, dtype if lower is None or dtype not in LOWERED else lower)


def _engine_for(kind: str, dtype: torch.dtype) -> str:
    runs = kind == "cpu" and dtype in NATIVE
    without = "portable" if kind == "cpu" else "dense"
    if _forced == "cpu" and not runs:
        return without
    return _forced or ("cpu" if runs and has_native() else without)


# The least multiplications from which torch's own products are made of what all steps keep. On a
# CPU measured, p .5, one thread: in half precision 1.05 to 3.3 times as fast from there on (but for
# an LSTM on one sequence, 0.9), in others 1.2 to 1.7 times. On a GPU on paper: some ten launches
# more, 5 us each, against half of three products at 50 TFLOP/s.
GATHERED = {"cpu, half": 1_000_000, "cpu": 100_000_000, "other": 1_000_000_000}


def worth_gathering(x: torch.Tensor, N: int) -> bool:
    """Return whether torch's own products should be made of the kept columns alone where all steps
    share one set, and no kernels of ours run.

    Args:
        x: the rows of a product, ``[.., D]``.
        N: the outputs of its weight ``[N, D]``.
    """
    kind = x.device.type if x.device.type == "cpu" else "other"
    half = (autocast_dtype(x.device.type) or x.dtype).itemsize == 2
    least = GATHERED["cpu, half" if kind == "cpu" and half else kind]
    stock = left_to_torch() and not has_kernels(x) and not in_transform()
    return stock and x.numel() * N >= least


def has_kernels(x: torch.Tensor, dtype: torch.dtype | None = None) -> bool:
    """Return whether an op on x runs on native kernels: float32, float64 or bfloat16 on the CPU.

    Args:
        dtype: what it is computed in. Default: x's, or what autocast asks for.
    """
    if dtype is not None:
        return _engine_for(x.device.type, dtype) == "cpu"
    return engine_for(x.device, x.dtype) == "cpu"


def runs_natively(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether an op on x, computed in this dtype, runs on native kernels here and now."""
    return has_kernels(x, dtype) and not in_transform()


def worth_compacting(x: torch.Tensor, N: int) -> bool:
    """Return whether to leave units out where torch has a dense layer that does the same.
    Deprecated: ends with version 0.4.

    Args:
        x: the rows of a product, ``[.., D]``.
        N: the outputs of its weight ``[N, D]``.
    """
    warnings.warn(
        "opennmt_sd.ops.worth_compacting is deprecated and ends with version 0.4 (June 2027): use "
        "leaves_out, which takes the multiplications and the rate",
        DeprecationWarning,
        stacklevel=2,
    )
    return leaves_out(x, x.numel() * N)


def left_to_torch() -> bool:
    """Return whether what torch's own layers can do on a masked input is left to them where there
    are no kernels: no engine is forced, but for the dense one."""
    return forced() in (None, "dense")


# Below so many multiplications of a product, what goes around the kernels takes longer than the
# units left out save (measured: 0.2 ms against 90 GFLOP/s).
SMALL = 10_000_000
# And of a recurrent layer, in one direction, of which torch makes a product or more a step.
SMALL_LAYER = 1_000_000
# Of bfloat16 on a processor that does not multiply in it: torch takes six times as long there as
# for float32, which ours then multiply.
SMALL_BFLOAT16 = 2_000_000


def leaves_out(
    x: torch.Tensor, multiplications: int = SMALL, p: float = 0.5, *, small: int = SMALL
) -> bool:
    """Return whether products on x leave the dropped units out.

    They do on an engine that is forced and, unless they are small, on native kernels; else x is
    masked and multiplied densely, at torch's own speed.

    Args:
        multiplications: of the products, with nothing left out, where torch has a dense layer
            that does the same. Default: enough.
        p: share of them that is left out. Under half, where torch's products are as fast as ours,
            fewer count in proportion. Default: half.
        small: multiplications below which it is small. Default: those of a product.
    """
    if _forced is None and x.is_cpu:
        warn_if_missing()
    if not left_to_torch():
        return True
    smallest = min(small, SMALL_BFLOAT16)
    if multiplications < smallest:
        return False  # whatever x is
    slow = (autocast_dtype(x.device.type) or x.dtype) == torch.bfloat16 and not bfloat16.known()
    if p < 0.5 and not (slow or outruns_torch()):
        multiplications = int(multiplications * 2 * p)
    return multiplications >= (smallest if slow else small) and has_kernels(x)


def reads_back(x: torch.Tensor) -> bool:
    """Return whether work may depend on what tensors beside x hold, which a GPU would have to be
    waited for: not on the dense engine."""
    return engine_for(x.device, x.dtype) != "dense"


def engine(x: torch.Tensor) -> Engine:
    """Return the engine that runs an op on x."""
    if in_transform():  # the others know backward passes only
        return naive
    if _forced is None and x.device.type == "cpu":
        warn_if_missing()
    name = engine_for(x.device, x.dtype)
    return measured if name == "dense" != _forced else ENGINES[name]


def refuse_transforms(handle: object, made_by: str) -> None:
    """Refuse a prepared handle of the other engines in ``torch.func`` or forward mode.

    Raises:
        RuntimeError: the text says how it works.
    """
    if in_transform() and not isinstance(handle, (Memory, Weight)):
        raise RuntimeError(
            f"torch.func and forward mode are supported by the naive engine alone: call {made_by} "
            "inside of them too, or under opennmt_sd.ops.use('naive')"
        )
