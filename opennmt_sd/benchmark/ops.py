"""Suite ``ops``: each phase of the masked GEMM and of the recurrence, against torch's dense GEMM.

The baseline of a time-batched phase is one dense product over all steps; of the recurrence's FP
and BP, T products one after the other (gates left out of the baseline, not of ours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from opennmt_sd import ops
from opennmt_sd.benchmark.measure import alternate
from opennmt_sd.benchmark.row import Row, doubled, gate, relative_error
from opennmt_sd.dropout import DropoutPattern, KeepSets
from opennmt_sd.ops.cpu import kernels, operands

T, B = 35, 20  # the unroll and the batch of the language model
TOLERANCE = 1e-5  # float32 sums of up to 10,000 terms


@dataclass(frozen=True)
class Linear:
    """K inputs to N outputs, all steps at once: FP, BP, WG."""

    K: int
    N: int
    p: float

    @property
    def name(self) -> str:
        return f"{self.K}->{self.N} " + ("FC" if self.N == VOCABULARY else "NR")


@dataclass(frozen=True)
class Recurrent:
    """The recurrence of H units: REC-FP, REC-BP, REC-WG."""

    H: int
    p: float

    @property
    def name(self) -> str:
        return f"{self.H} RH"


Case = Linear | Recurrent
VOCABULARY = 10_000
CASES: list[Case] = [
    Linear(650, 2600, 0.5),
    Linear(1500, 6000, 0.65),
    Linear(650, VOCABULARY, 0.5),
    Linear(1500, VOCABULARY, 0.65),
    Recurrent(650, 0.5),
    Recurrent(1500, 0.65),
]


RATES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)  # of the picture


@dataclass(frozen=True)
class Phase:
    """The same product three times."""

    flops: int  # dense
    torch: Callable[[], Any]
    dense: Callable[[], Any]
    ours: Callable[[], Any]
    error: Callable[[], float]


def run(repeats: int = 15, cases: Sequence[Case] | None = None) -> Iterator[Row]:
    """Row after row.

    Raises:
        RedGateError: a phase computes something wrong; nothing more is measured.
    """
    for case in CASES if cases is None else cases:
        torch.manual_seed(0)
        width = case.K if isinstance(case, Linear) else case.H
        keep = DropoutPattern(case.p).draw(T, B, width)
        assert isinstance(keep, KeepSets)
        kept = float(keep.count.double().mean()) / width
        phases = linear(case, keep) if isinstance(case, Linear) else recurrent(case, keep)
        for name, phase in phases.items():
            error = gate(f"{case.name} {name}", phase.error(), TOLERANCE)
            ms = alternate(
                {"torch": phase.torch, "dense": phase.dense, "ours": phase.ours}, repeats
            )
            yield Row(
                suite="ops", case=case.name, phase=name, p=case.p, torch_ms=ms["torch"],
                dense_ms=ms["dense"], ours_ms=ms["ours"], ideal=1 / (1 - case.p),
                max_rel_err=error, gflops=phase.flops * kept / ms["ours"] / 1e6,
            )  # fmt: skip


def more(repeats: int, cases: Sequence[Case]) -> Iterator[Row]:
    """Give the same cases at further rates, for the picture."""
    for case in cases:
        yield from run(min(repeats, 7), [replace(case, p=p) for p in RATES if p != case.p])


def linear(case: Linear, keep: KeepSets) -> dict[str, Phase]:
    x, dy = torch.randn(T * B, case.K), torch.randn(T * B, case.N)
    w = torch.randn(case.N, case.K) / case.K**0.5
    masked = keep.apply(x.view(T, B, -1)).view_as(x)
    kept, dense = ((operands.kept(k), [B] * T) for k in (keep, None))

    def back(full: Tensor) -> Tensor:
        return keep.apply(full.view(T, B, -1)).view_as(full)

    def phase(
        stock: Callable[..., Tensor], ours: Callable[..., Tensor], truth: Callable[..., Tensor]
    ) -> Phase:
        def error() -> float:
            return relative_error([ours(*kept)], [truth(*doubled(masked, dy, w))])

        return Phase(
            2 * T * B * case.K * case.N,
            lambda: stock(x, dy, w), lambda: ours(*dense), lambda: ours(*kept), error,
        )  # fmt: skip

    return {
        "FP": phase(
            lambda x, dy, w: x @ w.t(),  # noqa: ARG005
            lambda *sets: kernels.linear_fp(x, w, None, *sets),
            lambda x, dy, w: x @ w.t(),  # noqa: ARG005
        ),
        "BP": phase(
            lambda x, dy, w: dy @ w,  # noqa: ARG005
            lambda *sets: kernels.linear_bp(dy, w, *sets),
            lambda x, dy, w: back(dy @ w),  # noqa: ARG005
        ),
        "WG": phase(
            lambda x, dy, w: dy.t() @ x,  # noqa: ARG005
            lambda *sets: kernels.linear_wg(x, dy, *sets),
            lambda x, dy, w: dy.t() @ x,  # noqa: ARG005
        ),
    }


def recurrent(case: Recurrent, keep: KeepSets) -> dict[str, Phase]:
    H = case.H
    gates_x, w = torch.randn(T * B, 4 * H), torch.randn(4 * H, H) / H**0.5
    h0, c0, d_hidden = torch.randn(B, H), torch.randn(B, H), torch.randn(T * B, H)
    kept, dense = ((operands.kept(k), [B] * T, False) for k in (keep, None))
    hidden, gates, cells = kernels.lstm_fp(gates_x, w, h0, c0, *kept)
    d_gates, *_ = kernels.lstm_bp(d_hidden, h0, c0, w, c0, gates, cells, *kept)
    flops = 2 * T * B * H * 4 * H

    def fp(*sets: Any) -> Any:
        return kernels.lstm_fp(gates_x, w, h0, c0, *sets)

    def bp(*sets: Any) -> Any:
        return kernels.lstm_bp(d_hidden, h0, c0, w, c0, gates, cells, *sets)

    def wg(*sets: Any) -> Tensor:
        return kernels.lstm_wg(hidden, h0, d_gates, *sets)

    def products(rows: Tensor, weight: Tensor) -> list[Tensor]:
        return [row @ weight for row in rows.view(T, B, -1).unbind()]

    def truth() -> tuple[list[Tensor], list[Tensor]]:
        """Compute naively in float64: hidden and final states; d_gates, dh0, dc0, dw."""
        gates, u, h, c = (t.requires_grad_() for t in doubled(gates_x.view(T, B, -1), w, h0, c0))
        with ops.use("naive"):
            one = torch.eye(4 * H).double()  # the input's part of the gates is given
            y, h_n, c_n = ops.lstm_layer(gates, None, one, None, u, h, c, keep)
            grads = torch.autograd.grad(
                (y, h_n, c_n), (gates, u, h, c), doubled(d_hidden.view(T, B, -1), h0, c0)
            )
        return [y.flatten(0, 1), h_n, c_n], [grads[0].flatten(0, 1), *grads[2:], grads[1]]

    outputs, gradients = truth()
    ours_bp = bp(*kept)
    errors = {
        "REC-FP": lambda: relative_error([fp(*kept)[0]], outputs[:1]),
        "REC-BP": lambda: relative_error(ours_bp, gradients[:3]),
        "REC-WG": lambda: relative_error([wg(*kept)], gradients[3:]),
    }
    before = torch.cat([h0, hidden[:-B]])
    stock: dict[str, Callable[[], Any]] = {
        "REC-FP": lambda: products(before, w.t()),
        "REC-BP": lambda: products(d_gates, w),
        "REC-WG": lambda: d_gates.t() @ before,
    }
    ours: dict[str, Callable[..., Any]] = {"REC-FP": fp, "REC-BP": bp, "REC-WG": wg}
    return {
        name: Phase(flops, stock[name], partial(f, *dense), partial(f, *kept), errors[name])
        for name, f in ours.items()
    }
