"""Suite ``ops`` on a GPU: each op forward and backward, against what torch has for the same.

A masked product against ``nn.Dropout`` and torch's product; a loss on it too; a recurrence with
dropout, which torch has not, against ``nn.LSTM`` or ``nn.GRU`` with none. Case IV is a set for all
steps. A backward pass gives every gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opennmt_sd import ops
from opennmt_sd.benchmark.ops import RATES, VOCABULARY, B, T
from opennmt_sd.benchmark.row import Row, gate, relative_error
from opennmt_sd.benchmark.target import Target, forced
from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.by_name import STRUCTURED, TORCHS

TOLERANCE = 1e-5  # float32 sums of up to 10,000 terms
ALONG = 1e-4  # float32 along 35 dependent steps
Outputs = Sequence[Tensor]


@dataclass(frozen=True)
class Case:
    """An op on ``[T, B, K]``.

    Args:
        op: ``"linear"``, ``"nll"``, or a cell: ``"lstm"``, ``"gru"``.
        K, N: inputs; outputs, words, or H.
        p: rate; of a cell the state's.
        fixed: one set for all steps (Case IV).
        batch: B.
    """

    op: str
    K: int
    N: int
    p: float
    fixed: bool = False
    batch: int = B

    @property
    def name(self) -> str:
        fed = f"{self.N} {self.op.upper()} RH" if self.recurrent else f"{self.K}->{self.N}"
        words = [fed, {"nll": "loss", "linear": ""}.get(self.op, "")]
        words += [f"B{self.batch}"] if self.batch != B else []
        return " ".join(w for w in (*words, "Case IV" if self.fixed else "") if w)

    @property
    def recurrent(self) -> bool:
        return self.op in STRUCTURED

    @property
    def ideal(self) -> float:
        """Multiplications, all over those left: of a cell its input's product is dense."""
        kept = 1 - self.p
        return (self.K + self.N) / (self.K + self.N * kept) if self.recurrent else 1 / kept

    def draw(self) -> Keep:
        pattern = DropoutPattern(self.p, time="fixed" if self.fixed else "random")
        width = self.N if self.recurrent else self.K
        return pattern.draw_mask(T, self.batch, width) if not self.fixed else pattern.draw(
            T, self.batch, width
        )  # fmt: skip


CASES = [
    Case("linear", 650, 2600, 0.5),
    Case("linear", 650, 2600, 0.5, fixed=True),
    Case("linear", 1500, 6000, 0.65),
    Case("linear", 1500, 6000, 0.65, fixed=True),
    Case("nll", 650, VOCABULARY, 0.5),
    Case("nll", 1500, VOCABULARY, 0.65),
    Case("nll", 1500, VOCABULARY, 0.65, fixed=True),
    Case("lstm", 650, 650, 0.5),
    Case("lstm", 1500, 1500, 0.65),
    Case("lstm", 1024, 1024, 0.5, batch=128),
    Case("gru", 650, 650, 0.5),
    Case("gru", 1500, 1500, 0.65),
]


class Work:
    """An op with its operands.

    Args:
        keep: what is kept; None keeps all.
    """

    def __init__(self, case: Case, target: Target, keep: Keep | None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.case, self.keep, self._put = case, keep, target.put

        def make(*shape: int, scale: float = 1.0) -> Tensor:
            x = torch.randn(shape, generator=generator) * scale
            return self._put(x).requires_grad_()

        K, N, rows = case.K, case.N, (T, case.batch)
        gates = STRUCTURED[case.op].gates if case.recurrent else 1
        self.given = {"x": make(*rows, K), "weight": make(gates * N, K, scale=K**-0.5),
                      "bias": make(gates * N, scale=0.1)}  # fmt: skip
        if case.recurrent:
            self.given["weight_hh"] = make(gates * N, N, scale=N**-0.5)
        self.dy = make(*rows, N).detach()
        self.targets = torch.randint(N, rows, generator=generator).to(target.device)
        self.zeros = self._put(torch.zeros(case.batch, N))
        self._stock = self._layer() if case.recurrent else None

    def _layer(self) -> nn.RNNBase:
        layer: nn.RNNBase = self._put(TORCHS[self.case.op](self.case.K, self.case.N))
        with torch.no_grad():
            for name, of in (("weight_ih_l0", "weight"), ("weight_hh_l0", "weight_hh"),
                             ("bias_ih_l0", "bias")):  # fmt: skip
                getattr(layer, name).copy_(self.given[of])
            layer.get_parameter("bias_hh_l0").zero_()
        return layer

    def ours(self) -> Tensor:
        """Run our op: give y, or the loss."""
        x, weight, bias, *more = self.given.values()
        if self.case.op == "linear":
            return ops.masked_linear(x, self.keep, weight, bias)
        if self.case.op == "nll":
            return ops.projected_nll(x, self.keep, weight, bias, self.targets, hits=False,
                                     factor=1 / self.targets.numel())[0]  # fmt: skip
        h, weight_hh = self.zeros, more[0]
        if self.case.op == "lstm":
            return ops.lstm_layer(x, None, weight, bias, weight_hh, h, h, self.keep)[0]
        return ops.gru_layer(x, None, weight, bias, weight_hh, None, h, self.keep)[0]

    def stock(self) -> Tensor:
        """Run what a user would otherwise."""
        x, weight, bias, *_ = self.given.values()
        if self._stock is not None:
            y, _ = self._stock(x)
            return y
        y = F.linear(F.dropout(x, self.case.p), weight, bias)
        if self.case.op == "linear":
            return y
        return F.cross_entropy(y.flatten(0, 1), self.targets.flatten())

    def leaves(self, run: Callable[[], Tensor]) -> list[Tensor]:
        """Return what has gradients in a run."""
        if self._stock is not None and run == self.stock:
            return [self.given["x"], *self._stock.parameters()]
        return list(self.given.values())

    def backward(self, y: Tensor, leaves: Sequence[Tensor]) -> Outputs:
        """Return every gradient; the graph stays."""
        return torch.autograd.grad(y, leaves, self.dy if y.dim() else None, retain_graph=True)

    def results(self) -> list[Tensor]:
        y = self.ours()
        return [y.detach(), *self.backward(y, list(self.given.values()))]

    def truth(self) -> list[Tensor]:
        """Give the same in float64, on the naive engine."""
        before = dict(self.given), self.dy, self.zeros
        self.given = {name: x.detach().double().requires_grad_() for name, x in self.given.items()}
        self.dy, self.zeros = self.dy.double(), self.zeros.double()
        try:
            with ops.use("naive"):
                return self.results()
        finally:
            self.given, self.dy, self.zeros = before


def run(repeats: int, cases: Sequence[Case], target: Target) -> Iterator[Row]:
    """Row after row: FP and BP (its WG included) of each case.

    Raises:
        RedGateError: a case computes something wrong; nothing more is measured.
    """
    for case in cases:
        torch.manual_seed(0)
        work, nothing = Work(case, target, case.draw()), Work(case, target, None)
        error = relative_error(work.results(), work.truth())
        gate(case.name, error, target.tolerance(ALONG if case.recurrent else TOLERANCE))
        turns: dict[str, Callable[[], Tensor]] = {
            "torch": work.stock, "dense": nothing.ours, "ours": work.ours
        }  # fmt: skip
        owners = {"torch": work, "dense": nothing, "ours": work}
        if target.loops(case.recurrent):
            turns["loop"], owners["loop"] = forced(work.ours, "dense"), work
        backward = {name: _backward(owners[name], call) for name, call in turns.items()}
        for phase, calls in (("FP", turns), ("BP+WG", backward)):
            ms = target.alternate(calls, repeats)
            yield Row(
                suite="ops", case=case.name, phase=phase, p=case.p, torch_ms=ms["torch"],
                dense_ms=ms["dense"], ours_ms=ms["ours"], loop_ms=ms.get("loop"),
                ideal=case.ideal, max_rel_err=error,
            )  # fmt: skip


def _backward(work: Work, call: Callable[[], Tensor]) -> Callable[[], Any]:
    """Return the backward pass of a call, which is made once."""
    y, leaves = call(), work.leaves(call)
    return lambda: work.backward(y, leaves)


def more(repeats: int, cases: Sequence[Case], target: Target) -> Iterator[Row]:
    """Give the same cases at further rates, for the picture."""
    for case in cases:
        further = [replace(case, p=p) for p in RATES if p != case.p]
        yield from run(min(repeats, 7), further, target)
