"""The kernels' own tests need the native module."""

from __future__ import annotations

import pytest

from opennmt_sd.ops import cpu


@pytest.fixture
def native() -> None:
    if cpu.native() is None:
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")
