"""A pickle module for `torch.load` that builds data and runs no code, for torch below 2.6.

`torch.load(weights_only=True)` is the same from torch 2.6 on. Below 2.4 it cannot be told that an
``argparse.Namespace`` is data, and below 2.6 it could be led around (CVE-2025-32434); so there the
ordinary `torch.load` gets this in place of ``pickle``: a file may name what stands in
:data:`ALLOWED` and nothing else.
"""

from __future__ import annotations

import argparse
import collections
import pickle
from typing import Any

import torch

from opennmt_sd.compat import tensor_builders

_PLAIN = {
    "builtins": (bytearray, bytes, complex, frozenset, set),
    "collections": (collections.Counter, collections.OrderedDict),
    "argparse": (argparse.Namespace,),
    "torch": (torch.Size, torch.device),
    "torch.nn.parameter": (torch.nn.Parameter,),
}


def _allowed() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        (module, cls.__name__): cls for module, classes in _PLAIN.items() for cls in classes
    }
    names |= tensor_builders()
    # Storages: torch looks up the names of the typed ones by itself, and asks for the rest.
    names[("torch.storage", "UntypedStorage")] = torch.UntypedStorage
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype) or name.endswith("Storage"):
            names[("torch", name)] = value
    # As pickles of Python 2, and of protocol 2, name the first of these.
    python2 = {("__builtin__", name): cls for (home, name), cls in names.items()
               if home == "builtins"}  # fmt: skip
    return names | python2 | {("_codecs", "encode"): _encode}


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Give bytes, which protocol 2 writes as text; no codec but this one is looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the file asks for the codec {encoding!r}")
    return text.encode("latin1")


ALLOWED = _allowed()


class Unpickler(pickle.Unpickler):
    """An unpickler for which nothing exists but what is allowed."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which a checkpoint does not need and which is not "
                "loaded, for it could run code"
            ) from None


def load(file: Any, **options: Any) -> Any:
    """Do what ``pickle.load`` does, with :class:`Unpickler`."""
    return Unpickler(file, **options).load()
