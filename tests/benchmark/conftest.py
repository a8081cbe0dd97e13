"""Small cases: a test of the benchmark is about what it says, not about how fast anything is."""

from __future__ import annotations

import pytest

from opennmt_sd.ops.cpu import native


@pytest.fixture(autouse=True)
def native_module() -> None:
    if native() is None:
        pytest.skip("the native module was not built, so there is nothing to measure")
