"""The stub declares what the native module has: all of it, and as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from opennmt_sd.ops import cpu

STUB = Path(cpu.__file__).with_name("_native.pyi")


def declared() -> ast.Module:
    return ast.parse(STUB.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("native")
def test_the_stub_names_what_there_is() -> None:
    names = set()
    for node in declared().body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    assert names == {name for name in dir(cpu.require_native()) if not name.startswith("_")}


@pytest.mark.usefixtures("native")
def test_the_stub_is_what_the_module_says_of_itself() -> None:
    """Types and keywords too: nanobind writes the stub again, and nothing has changed."""
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind is there where it is built")
    generator = stubgen.StubGen(cpu.require_native())
    generator.put(cpu.require_native())
    written = ast.parse(generator.get())
    for node in written.body:
        if isinstance(node, ast.AnnAssign):
            node.value = None  # the name of the compiler that built it
    assert ast.dump(written) == ast.dump(declared())
