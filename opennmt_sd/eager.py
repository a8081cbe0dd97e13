"""Keeping ``torch.compile`` out of a function, without paying for the compiler at import."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.disable``, which imports torch's compiler (seconds) only once it is used.

    A compiled model breaks its graph here and runs the function as it is.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < (
        2,
        4,
    ):  # there the compiler cannot be told while it is tracing
        return torch.compiler.disable(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped
