"""The masked linear layer, a step at a time, its weight packed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.ops.cpu import kernels
from opennmt_sd.ops.cpu.custom_op import register
from opennmt_sd.ops.cpu.kernels import Sets
from opennmt_sd.ops.cpu.operands import flops
from opennmt_sd.ops.deferred import DeferredLinear, LinearStep
from opennmt_sd.ops.engine import StepwiseLinear


class Step(NamedTuple):
    """x ``[n, D]``, a packed weight ``[N, D]``, bias ``[N]``; the sets are this step's alone."""

    x: Tensor
    packed: Tensor
    N: int
    bias: Tensor | None
    sets: Sets


class StepBP(NamedTuple):
    """dy ``[n, N]``, a packed weight ``[N, D]``."""

    dy: Tensor
    packed: Tensor
    D: int
    sets: Sets


class StepsWG(NamedTuple):
    """x ``[n, D]`` and dy ``[n, N]`` of each step, and a set for each."""

    xs: list[Tensor]
    dys: list[Tensor]
    sets: Sets
    lowers: bool


step_fp = register(
    "step_fp", Step, 1,
    lambda a: kernels.step_fp(a.x, a.packed, a.N, a.bias, a.sets),
    lambda a: a.x.new_empty(a.x.shape[0], a.N),
    lambda a: flops((a.N, a.x.shape[1]), a.sets.counts, [len(a.x)]),
)  # fmt: skip
step_bp = register(
    "step_bp", StepBP, 1,
    lambda a: kernels.step_bp(a.dy, a.packed, a.D, a.sets),
    lambda a: a.dy.new_empty(a.dy.shape[0], a.D),
    lambda a: flops((a.dy.shape[1], a.D), a.sets.counts, [len(a.dy)]),
)  # fmt: skip
steps_wg = register(
    "steps_wg", StepsWG, 1,
    lambda a: kernels.steps_wg(a.xs, a.dys, a.sets, a.lowers),
    lambda a: a.xs[0].new_empty(a.dys[0].shape[1], a.xs[0].shape[1]),
    lambda a: flops((a.dys[0].shape[1], a.xs[0].shape[1]), a.sets.counts, [len(x) for x in a.xs]),
)  # fmt: skip

ALL = Sets()


class _Kernels:
    engine = "cpu"
    read: tuple[Tensor, ...] = ()

    def __init__(self, weight: Tensor, bias: Tensor | None, lowers: bool) -> None:
        self.packed = kernels.prepare(weight.detach(), lowers)
        self.lowers = lowers
        self.bias = None if bias is None else bias.detach()
        self.N, self.D = weight.shape

    def fp(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        if isinstance(keep, KeepSets):
            return step_fp(Step(x, self.packed, self.N, self.bias, _one(keep, t)))
        x = x if keep is None else keep.apply_step(x, t)
        return step_fp(Step(x, self.packed, self.N, self.bias, ALL))

    def bp(self, dy: Tensor, keep: Keep | None, t: int) -> Tensor:
        if isinstance(keep, KeepSets):
            return step_bp(StepBP(dy, self.packed, self.D, _one(keep, t)))
        dx = step_bp(StepBP(dy, self.packed, self.D, ALL))
        return dx if keep is None else keep.apply_step(dx, t)

    def wg(self, steps: list[LinearStep]) -> tuple[Tensor, Tensor]:
        groups: dict[float | None, list[LinearStep]] = {}
        for step in steps:
            scale = step.keep.scale if isinstance(step.keep, KeepSets) else None
            groups.setdefault(scale, []).append(step)
        parts = [_weight_gradient(group, self.lowers) for group in groups.values()]  # mostly one
        dw = parts[0]
        for part in parts[1:]:
            dw += part
        dys = [step.dy for group in groups.values() for step in group]
        return dw, torch.stack([dy.sum(0) for dy in dys]).sum(0)


def _weight_gradient(steps: list[LinearStep], lowers: bool) -> Tensor:
    """Return WG over steps whose sets share one scale, or over steps without sets."""
    dys = [step.dy for step in steps]
    kept = [(s.keep, _at(s.keep, s.t)) for s in steps if isinstance(s.keep, KeepSets)]
    if not kept:
        xs = [s.x if s.keep is None else s.keep.apply_step(s.x, s.t) for s in steps]
        return steps_wg(StepsWG(xs, dys, ALL, lowers))
    idx = torch.cat([keep.idx[at] for keep, at in kept])
    counts = torch.cat([keep.count[at] for keep, at in kept])
    sets = Sets(idx=idx, counts=counts, scale=kept[0][0].scale)
    return steps_wg(StepsWG([step.x for step in steps], dys, sets, lowers))


def _one(keep: KeepSets, t: int) -> Sets:
    """Return the set of step t alone: idx ``[1, D]`` and count ``[1]``."""
    at = _at(keep, t)
    return Sets(idx=keep.idx[at], counts=keep.count[at], scale=keep.scale)


def _at(keep: KeepSets, t: int) -> slice:
    """Return where the set of step t lies."""
    s = 0 if keep.steps == 1 else t
    return slice(s, s + 1)


class _Lowered:
    """A prepared weight of bfloat16, of which the kernels take float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        bias = None if bias is None else bias.float()
        weight = weight.float()
        self._handle = DeferredLinear(weight, bias, _Kernels(weight, bias, lowers=True))

    def step(self, x: Tensor, keep: Keep | None, t: int) -> Tensor:
        return self._handle.step(x.float(), keep, t).bfloat16()


def prepare(weight: Tensor, bias: Tensor | None) -> StepwiseLinear:
    if weight.dtype == torch.bfloat16:
        return _Lowered(weight, bias)
    return DeferredLinear(weight, bias, _Kernels(weight, bias, lowers=False))
