"""Kernels of Triton's without a GPU: run by its interpreter, or compiled and looked at.

Either needs Triton, and the interpreter a process of its own: ``scripts/check_triton.sh``.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import pytest

from opennmt_sd.ops.measured.faster import OLDEST


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        found = version("triton")
    except PackageNotFoundError:
        found = None
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for item in items:
        compiles = item.get_closest_marker("compiles") is not None
        if "kernels" not in item.fixturenames and not compiles:
            continue
        if found is None:
            why = "Triton is not installed: scripts/check_triton.sh runs this"
        elif tuple(map(int, found.split(".")[:2])) < OLDEST:  # an older torch brings it
            why = f"Triton {found} is too old for the kernels: scripts/check_triton.sh runs this"
        elif compiles and interpreted:
            why = "TRITON_INTERPRET=1: nothing is compiled"
        elif not compiles and not interpreted:
            why = "it needs TRITON_INTERPRET=1, in a process of its own"
        else:
            continue
        item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def kernels():
    """The module that launches the kernels."""
    from opennmt_sd.ops.triton import launch

    return launch
