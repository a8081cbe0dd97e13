"""The devices on which two ways are timed, and what they are asked."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Protocol

import torch


class Device(Protocol):
    """A kind of device with a clock."""

    def name(self, device: torch.device) -> str:
        """Return what times depend on: the card and the versions of what it runs."""

    def mark(self) -> Any:
        """Return a point in the work of the device; it is not waited for."""

    def between(self, start: Any, end: Any) -> float:
        """Return the milliseconds from one point to another, once the device is there."""

    def captures(self) -> bool:
        """Return whether what is launched is being captured in a graph, and does not run."""

    def waiting_allowed(self) -> Any:
        """Return a context in which the device may be waited for."""

    def clean_up(self) -> None:
        """Give back memory that nobody holds: there was too little."""


class Cuda:
    """A card by NVIDIA, or by AMD: torch calls both CUDA."""

    def name(self, device: torch.device) -> str:
        return _card(torch.cuda.current_device() if device.index is None else device.index)

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(start.elapsed_time(end))

    def captures(self) -> bool:
        return torch.cuda.is_current_stream_capturing()

    @contextmanager
    def waiting_allowed(self) -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode(0)
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def clean_up(self) -> None:
        torch.cuda.empty_cache()


# Kind of device: how it is asked. On any other the built-in rules decide.
DEVICES: dict[str, Device] = {"cuda": Cuda()}


@functools.cache
def _card(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    card = f"{properties.name} ({properties.major}.{properties.minor})"
    return f"{card}, torch {torch.__version__}, Triton {_triton()}"


def _triton() -> str:
    for package in ("triton", "pytorch-triton", "triton-rocm", "pytorch-triton-rocm"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "none"
