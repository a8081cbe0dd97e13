"""Keeping ``torch.compile`` out of a function, without paying for the compiler at import."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from opennmt_sd.compat import KNOWS_OPS, is_compiling, mark_constant

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Apply ``torch.compiler.disable``; import torch's compiler (seconds) only where it is used.

    A compiled model breaks its graph here and runs the function as it is.
    """
    if not KNOWS_OPS:
        return torch.compiler.disable(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def traceable(function: Callable[P, R]) -> Callable[P, R]:
    """Let a compiled model take the function into its graph, where torch can."""
    return function if KNOWS_OPS else uncompiled(function)


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Apply ``torch.compiler.assume_constant_result``, without importing torch's compiler: what
    the function returns does not change while a process lives, so a compiled model asks once.

    An older compiler would put the answer in the function's place, so it stays out.
    """
    if not KNOWS_OPS:
        return uncompiled(function)
    mark_constant(function)
    return function
