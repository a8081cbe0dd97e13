"""The kernels compile ahead for cards that are not there, and what comes out is no slow code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.compiles, pytest.mark.slow]

NUMBERS = ("begin", "end", "T", "B", "H", "stride", "columns", "S", "samples")
FLOAT32 = ("gates", "cells", "states", "q", "other")
INT32 = ("kept", "count", "sizes", "offsets", "arrived")


def signature(kernel: Any, dtype: str, constants: dict[str, Any]) -> dict[str, str]:
    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in NUMBERS:
            return "i32"
        if name == "scale":
            return "fp32"
        special = {
            "dropped": "*u8",
            **dict.fromkeys(INT32, "*i32"),
            **dict.fromkeys(FLOAT32, "*fp32"),
        }
        return special.get(name, f"*{dtype}")

    return {name: kind(name) for name in kernel.arg_names}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["lstm_fp", "lstm_bp", "gru_fp", "gru_bp"])
def test_hardly_a_spill_wide_loads_matrix_units(
    name: str, dtype: str, capability: int, tmp_path: Path
) -> None:
    """At 650 units and 20 samples: what a program of 16 x 16 is compiled to."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource

    from opennmt_sd.ops.triton import gru_kernels, lstm_kernels
    from opennmt_sd.ops.triton.tiling import BP, FP

    kernel = getattr(lstm_kernels if name.startswith("lstm") else gru_kernels, name)
    product = FP[16] if name.endswith("fp") else BP[4 if dtype == "fp32" else 2]
    constants = {"BT": 16, "U": 16, "K": product.K, "SPLIT": product.SPLIT,
                 "PRECISION": product.float32, "DROPS": True, "PACKED": False, "REVERSE": False,
                 "ONCE": True}  # fmt: skip
    if name.endswith("fp"):
        constants |= {"COMPACT": True, "BIAS": name.startswith("gru")}
    types = signature(kernel, dtype, constants)
    aligned = [n for n in types if types[n].startswith("*") or n in ("stride", "columns")]
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    source = ASTSource(
        kernel, types, {places[n]: value for n, value in constants.items()},
        {places[n]: [["tt.divisibility", 16]] for n in aligned},
    )  # fmt: skip
    options = {"num_warps": product.warps, "num_stages": product.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

    code = compiled.asm["ptx"]
    file = tmp_path / "kernel.ptx"
    file.write_text(code)
    suffix = "a" if capability == 90 else ""
    said = subprocess.run(
        [get_ptxas(capability).path, "-v", f"--gpu-name=sm_{capability}{suffix}", str(file),
         "-o", str(tmp_path / "kernel")], capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill stores", said)]
    assert len(spilled) == 1
    assert spilled[0] <= 64  # of some 130,000 bytes of registers
    assert "cp.async.cg" in code, "no loads of 16 bytes"
    if dtype != "fp32" or product.float32 == "tf32x3":
        assert "mma" in code


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("out", ["fp32", "bf16", "u8"])
@pytest.mark.parametrize("name", ["draw", "draw_exact"])
def test_draws_compile(name: str, out: str, capability: int) -> None:
    """As they are launched: with a seed of 64 bits and numbers that are not made constants."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from opennmt_sd.dropout import draw_kernel, on_gpu

    kernel = getattr(draw_kernel, name)
    block = on_gpu.BLOCK if name == "draw" else on_gpu.RANKED
    special = {"out": f"*{out}", "seed": "i64", "threshold": "i64", "kept": "fp32",
               "dropped": "fp32", "BLOCK": "constexpr"}  # fmt: skip
    types = {name: special.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, types, {(kernel.arg_names.index("BLOCK"),): block})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert "st.global" in compiled.asm["ptx"]
    assert ".local" not in compiled.asm["ptx"], "registers are spilled"
