"""The binding to the native CPU module, which is there only if it could be built.

An install without a C++ compiler works all the same: the portable engine computes the same
results. pip hides what a build prints, so the absence is reported at first use.
"""

from __future__ import annotations

import functools
import importlib
import platform
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opennmt_sd._compile import constant

_NAME = "opennmt_sd.ops.cpu._native"


@constant
def native() -> ModuleType | None:
    """Return the native module, or None where it was not built or cannot be loaded."""
    return _load()[0]


@constant
def has_native() -> bool:
    """Return whether there is a native module."""
    return native() is not None


@constant
def outruns_torch() -> bool:
    """Return whether the kernels multiply faster than torch's library: they do with AVX-512, which
    that does not use on every processor; with AVX2 both are as fast."""
    module = native()
    return module is not None and module.simd_level() == "avx512"


@constant
def warn_if_missing() -> None:
    """Warn, once in a process, if there is no native module: what it means and what to do."""
    _warn_once()


@functools.cache
def _warn_once() -> None:
    module, fault = _load()
    if module is None:
        warnings.warn(_missing(fault, platform.machine()), RuntimeWarning, stacklevel=4)


def require_native() -> ModuleType:
    """Return the native module.

    Raises:
        RuntimeError: it is not there; the text says why and what to do.
    """
    module, fault = _load()
    if module is None:
        raise RuntimeError(_missing(fault, platform.machine()))
    return module


if TYPE_CHECKING:  # by its stub
    from opennmt_sd.ops.cpu import _native

    records = _native
else:

    class _Records:
        """The classes of the native module, which is loaded when one is asked for."""

        def __getattr__(self, name: str) -> Any:
            record = getattr(require_native(), name)
            setattr(self, name, record)
            return record

    records = _Records()


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    """Return the module, or None and the reason."""
    try:
        return importlib.import_module(_NAME), ""
    except ModuleNotFoundError as fault:
        return None, "it was not built" if fault.name == _NAME else str(fault)
    except ImportError as fault:  # built for another Python, or a library of its own is missing
        return None, f"it was built, but cannot be loaded: {fault}"


def _missing(fault: str, machine: str) -> str:
    text = (
        f"opennmt_sd runs without its native CPU module ({fault}): results are the same, but "
        "slower. "
    )
    if machine.lower() not in {"x86_64", "amd64"}:
        return text + f"It is there for x86-64 only, and this machine is {machine}."
    # pip would otherwise take the wheel that it built without a compiler, from its cache
    return text + (
        "To get it, install a C++17 compiler and Python's headers (Debian, Ubuntu: apt install g++ "
        "python3-dev) and reinstall from the checkout: make rebuild, or pip install "
        "--force-reinstall --no-deps --no-cache-dir ."
    )
