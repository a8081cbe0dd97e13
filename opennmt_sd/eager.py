"""Keeping ``torch.compile`` out of a function, without paying for the compiler at import."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


# Before, the compiler cannot be told while it is tracing, and knows no ops of others.
OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4)


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.disable``, which imports torch's compiler (seconds) only once it is used.

    A compiled model breaks its graph here and runs the function as it is.
    """
    if OLD:
        return torch.compiler.disable(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def traceable(function: Callable[P, R]) -> Callable[P, R]:
    """What a compiled model takes into its graph where torch allows it (2.4 and newer)."""
    return eager(function) if OLD else function


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.assume_constant_result``, without importing torch's compiler: what the
    function says does not change while a process lives, so a compiled model asks once.

    Before torch 2.4 the compiler would put the answer in the function's place, so it stays out.
    """
    if OLD:
        return eager(function)
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
