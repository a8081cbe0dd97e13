"""Wrapping a toolkit's functions where it has no hooks, and knowing them again.

What is wrapped has a fingerprint of its source beside it, in a plugin's ``compat``: a release that
moves it fails a test, instead of computing something else.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

Function = Callable[..., Any]


def wrap(owner: Any, name: str, wrapper: Callable[[Function], Function]) -> None:
    """Replace a function, method or class method of a toolkit, once, also where another of its
    modules has taken it by name already.

    Raises:
        RuntimeError: another wrapper of ours is there; it would be the only one.
    """
    stock, found = getattr(owner, name), inspect.getattr_static(owner, name)
    known = getattr(stock, "_wrapped_by_opennmt_sd", None)
    if known is wrapper:
        return
    if known is not None:
        raise RuntimeError(
            f"{name} is wrapped by {known.__name__} already: write {wrapper.__name__} into it"
        )
    of_class = isinstance(found, classmethod)
    ours = wrapper(found.__func__ if of_class else stock)
    ours._wrapped_by_opennmt_sd = wrapper  # type: ignore[attr-defined]
    setattr(owner, name, classmethod(ours) if of_class else ours)
    toolkit = stock.__module__.partition(".")[0]
    for key, module in list(sys.modules.items()):
        if key.startswith(f"{toolkit}.") and vars(module).get(name) is stock:
            setattr(module, name, ours)


def fingerprint(where: str) -> str:
    """Return the fingerprint of the source of ``module:name``, as stock wrote it."""
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return hashlib.sha256(inspect.getsource(inspect.unwrap(found)).encode()).hexdigest()[:16]
