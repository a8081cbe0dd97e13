"""All steps in one launch: programs that wait for each other, each in a thread of its own.

Triton's interpreter runs one program after the other, so a barrier would never open in it.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
import torch

from opennmt_sd import DropoutPattern
from opennmt_sd.ops.dense import cells
from opennmt_sd.ops.dense import recurrence as loop

T, B, H = 3, 17, 20  # three parts of the units, two of the samples


@pytest.fixture
def at_once(kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    from opennmt_sd.ops.triton import tiling

    here = threading.local()

    def run(self: Any, *given: Any, **flags: Any) -> None:
        named = inspect.getfullargspec(self.fn).args
        given_by_name = inspect.getcallargs(
            self.fn, *given, **{k: v for k, v in flags.items() if k in named}
        )
        scope = interpreter._patch_lang(self.fn)
        convert = interpreter._implicit_cvt
        args = {n: a if n in self.constexprs else convert(a) for n, a in given_by_name.items()}
        grid = (*self.grid, 1, 1)[:3]
        interpreter.interpreter_builder.set_grid_dim(*grid)
        failed: list[Exception] = []

        def program(x: int, y: int) -> None:
            here.index = x, y, 0
            try:
                self.fn(**args)
            except Exception as error:  # noqa: BLE001 - the thread's, for the test
                failed.append(error)

        programs = [
            threading.Thread(target=program, args=(x, y), daemon=True)
            for x in range(grid[0])
            for y in range(grid[1])
        ]
        try:
            for thread in programs:
                thread.start()
            for thread in programs:
                thread.join(60)
        finally:
            scope.restore()
        assert not failed, failed
        assert not any(thread.is_alive() for thread in programs), "nobody opens the barrier"

    index = property(lambda _: here.index, lambda _, value: setattr(here, "index", value))
    monkeypatch.setattr(interpreter.InterpreterBuilder, "grid_idx", index, raising=False)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", run)
    monkeypatch.setattr(tiling, "_multiprocessors", lambda _: 132)
    monkeypatch.setattr(tiling, "SIZES", [(16, 8)])


def results(kind: str, by: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    cell, gates = {"LSTM": (cells.LSTM(), 4), "GRU": (cells.GRU(), 3)}[kind]
    g = torch.Generator().manual_seed(0)
    shapes = [(T, B, gates * H), (gates * H, H), *[(B, H)] * (2 if kind == "LSTM" else 1)]
    x, weight, *state = leaves = [
        torch.randn(s, generator=g).mul(0.3).to(dtype).requires_grad_() for s in shapes
    ]
    keep = DropoutPattern(0.5).draw(T, B, H, torch.Generator().manual_seed(1))
    y, final = by(loop.Operands(cell, x, weight, None, tuple(state), keep))
    (y.pow(2).sum() + sum(f.sum() for f in final)).backward()
    return [y.detach(), *(f.detach() for f in final), *(leaf.grad for leaf in leaves)]


def agree(kind: str) -> bool:
    from opennmt_sd.ops.triton.recurrence import recurrence

    want = results(kind, loop.recurrence, torch.float64)
    got = results(kind, recurrence, torch.float32)
    return all(
        torch.allclose(a.double(), b, rtol=1e-5, atol=1e-5) for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_programs_wait_for_each_other(at_once: None, kind: str) -> None:
    assert agree(kind)


def test_without_the_barrier_the_results_are_wrong(
    at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opennmt_sd.ops.triton import lstm_kernels

    torch.use_deterministic_algorithms(True)  # memory that nobody wrote is NaN
    monkeypatch.setattr(lstm_kernels, "wait", lambda *_: None)
    assert not agree("LSTM")
