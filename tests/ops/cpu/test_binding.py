"""The native module where it is there, and the one warning where it is not."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from opennmt_sd import (
    DropoutPattern,
    MaskedLinear,
    StructuredGRU,
    StructuredLSTM,
    StructuredLSTMCell,
    ops,
)
from opennmt_sd.ops.cpu import binding

NAME = "opennmt_sd.ops.cpu._native"


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a fresh process: nothing loaded, nothing warned of."""

    def forget() -> None:
        binding._load.cache_clear()
        binding._warn_once.cache_clear()

    monkeypatch.delitem(sys.modules, NAME, raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch, not_loaded: None) -> None:
    monkeypatch.setitem(sys.modules, NAME, None)  # what `import` takes for: there is none


def warned(calls: int = 3) -> list[str]:
    """What some calls of an op warn of."""
    keep = DropoutPattern(0.5).draw(2, 3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            ops.masked_linear(torch.ones(2, 3, 4), keep, torch.ones(5, 4))
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def test_native_says_what_it_is(not_loaded: None) -> None:
    module = binding.native()
    if module is None:
        pytest.skip("built without a native module: no C++ compiler, or no x86-64")
    assert module.simd_level() in {"avx512", "avx2", "baseline"}
    assert module.compiler.split()[0].isalpha()
    assert warned() == []


def test_missing_module_is_one_warning_that_names_the_remedy(
    not_built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert binding.native() is None
    assert warned() == [
        "RuntimeWarning: opennmt_sd runs without its native CPU module (it was not built): results "
        "are the same, but slower. To get it, install a C++17 compiler and Python's headers "
        "(Debian, Ubuntu: apt install g++ python3-dev) and reinstall from the checkout: make "
        "rebuild, or pip install --force-reinstall --no-deps --no-cache-dir ."
    ]


@pytest.mark.parametrize("layer", [
    StructuredLSTM(4, 3, input_dropout=0.5), StructuredGRU(4, 3, recurrent_dropout=0.5),
    StructuredLSTMCell(4, 3, input_dropout=0.5), MaskedLinear(4, 3),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_layers_warn_too_however_small(not_built: None, layer: nn.Module) -> None:
    with pytest.warns(RuntimeWarning, match="runs without its native CPU module") as caught:
        [layer(torch.ones(2, 4)) for _ in range(2)]
    assert len(caught) == 1


def test_on_another_machine_there_is_no_remedy_to_name(
    not_built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert warned() == [
        "RuntimeWarning: opennmt_sd runs without its native CPU module (it was not built): results "
        "are the same, but slower. It is there for x86-64 only, and this machine is aarch64."
    ]


def test_a_module_that_cannot_be_loaded_says_why(
    not_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == NAME:
                raise ImportError("undefined symbol: one")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    (text,) = warned()
    assert "(it was built, but cannot be loaded: undefined symbol: one): results are" in text


def test_a_forced_engine_warns_of_nothing(not_built: None) -> None:
    with ops.use("portable"):
        assert warned() == []
    assert len(warned()) == 1
