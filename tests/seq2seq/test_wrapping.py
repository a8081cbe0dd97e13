"""Functions of a toolkit that are wrapped where they stand."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest

from opennmt_sd.seq2seq.wrapping import wrap


def test_a_function_is_wrapped_once() -> None:
    """A second wrapper would be left out in silence."""

    class Owner:
        @staticmethod
        def build() -> list[str]:
            return ["stock"]

    def first(build: Callable[[], list[str]]) -> Callable[[], list[str]]:
        return lambda: [*build(), "first"]

    def second(build: Callable[[], list[str]]) -> Callable[[], list[str]]:
        return lambda: [*build(), "second"]

    for _ in range(2):
        wrap(Owner, "build", first)
    assert Owner.build() == ["stock", "first"]
    text = "build is wrapped by first already: write second into it"
    with pytest.raises(RuntimeError, match=text):
        wrap(Owner, "build", second)
    assert Owner.build() == ["stock", "first"]


def test_modules_of_the_toolkit_that_took_it_by_name_get_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build() -> str:
        return "stock"

    build.__module__ = "toolkit.model"
    names = ("toolkit.model", "toolkit.train", "other.train")
    modules = [types.ModuleType(name) for name in names]
    for module in modules:
        vars(module)["build"] = build
        monkeypatch.setitem(sys.modules, module.__name__, module)
    wrap(modules[0], "build", lambda stock: lambda: f"wrapped {stock()}")
    assert [vars(module)["build"]() for module in modules] == [
        "wrapped stock", "wrapped stock", "stock",
    ]  # fmt: skip
