"""Packages that an extra of this one brings: where one is missing, the remedy in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import within this what ``opennmt_sd[name]`` installs.

    Raises:
        ModuleNotFoundError: of a missing package, with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "opennmt_sd"):
            raise
        raise ModuleNotFoundError(
            f"the package {package} is missing: pip install 'opennmt_sd[{name}]'", name=package
        ) from None
