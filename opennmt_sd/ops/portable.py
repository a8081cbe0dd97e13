"""The portable engine: compacted with plain torch ops, on any device and any torch >= 2.1.

A structured keep set K turns each product into a smaller one (FP, BP and WG alike):

    FP  y = scale * x[:, K] @ W[:, K].T
    BP  dx[:, K] = scale * dy @ W[:, K]
    WG  dW[:, K] = scale * dy.T @ x[:, K]

Everything below works on rows: time steps one after the other, ``[R, D]`` with R = sum(sizes).
Random (dense) masks, one set for all steps, and no mask at all make one product over all rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from opennmt_sd.dropout import Keep, KeepSets
from opennmt_sd.eager import eager
from opennmt_sd.ops.attention import PreparedMemory, attend_bp, attend_fp
from opennmt_sd.ops.stash import Stash

# ------------------------------------------------------------ the three phases, over all rows


def fp(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, sizes: list[int]
) -> Tensor:
    """Forward product: rows ``[R, D]`` to ``[R, N]``."""
    if not isinstance(keep, KeepSets):
        return F.linear(_masked(x, keep, sizes), weight, bias)
    if keep.steps == 1:
        K = keep.kept(0)
        return F.linear(x.index_select(1, K) * keep.scale, weight.index_select(1, K), bias)
    packed = weight.t().contiguous()  # [D, N]: a kept unit is one row, spread over all steps
    y = x.new_empty(x.shape[0], weight.shape[0])
    for t, rows in enumerate(_rows(sizes)):
        K = keep.kept(t)
        product = x[rows].index_select(1, K) @ packed.index_select(0, K)
        y[rows] = product.mul_(keep.scale) if bias is None else product.mul_(keep.scale).add_(bias)
    return y


def bp(dy: Tensor, keep: Keep | None, weight: Tensor, sizes: list[int]) -> Tensor:
    """Data gradient: rows ``[R, N]`` to ``[R, D]``, zero outside the kept units."""
    if not isinstance(keep, KeepSets):
        return _masked(dy @ weight, keep, sizes)
    dx = dy.new_zeros(dy.shape[0], weight.shape[1])
    if keep.steps == 1:
        K = keep.kept(0)
        return dx.index_copy_(1, K.long(), (dy @ weight.index_select(1, K)).mul_(keep.scale))
    packed = weight.t().contiguous()
    for t, rows in enumerate(_rows(sizes)):
        K = keep.kept(t)
        product = dy[rows] @ packed.index_select(0, K).t()
        dx[rows].index_copy_(1, K.long(), product.mul_(keep.scale))
    return dx


def wg(x: Tensor, dy: Tensor, keep: Keep | None, sizes: list[int]) -> Tensor:
    """Weight gradient of rows x ``[R, D]`` and dy ``[R, N]``: ``[N, D]``."""
    if not isinstance(keep, KeepSets):
        return dy.t() @ _masked(x, keep, sizes)
    dw = dy.new_zeros(x.shape[1], dy.shape[1], dtype=_sum_dtype(dy))  # [D, N]
    # One set: all rows are one step.
    for t, rows in enumerate(_rows([sum(sizes)] if keep.steps == 1 else sizes)):
        K = keep.kept(t)
        product = x[rows].index_select(1, K).t() @ dy[rows]
        dw.index_add_(0, K, product.to(dw.dtype), alpha=keep.scale)
    return dw.t().to(dy.dtype).contiguous()


def _masked(x: Tensor, keep: Keep | None, sizes: list[int]) -> Tensor:
    if keep is None or not x.numel():
        return x
    if len(set(sizes)) == 1:  # not packed: the mask broadcasts
        return keep.apply(x.view(len(sizes), sizes[0], -1)).view_as(x)
    return keep.apply(x, torch.tensor(sizes))


def _rows(sizes: list[int]) -> list[slice]:
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def _sum_dtype(x: Tensor) -> torch.dtype:
    """Sums over steps are at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _refuse_double_backward() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "double backward (create_graph=True) is not supported by the portable engine: run the "
            "forward pass under opennmt_sd.ops.use('naive'), which supports it"
        )


# ------------------------------------------------------------ time-batched masked linear


class _MaskedLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, keep: Keep, sizes: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.keep, ctx.sizes = keep, sizes
        return fp(x, keep, weight, bias, sizes)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        _refuse_double_backward()
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dx = bp(dy, ctx.keep, weight, ctx.sizes) if need_x else None
        dw = wg(x, dy, ctx.keep, ctx.sizes) if need_weight else None
        return dx, dw, dy.sum(0) if need_bias else None, None, None


@eager  # loops over steps whose sizes only the data know
def masked_linear(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, batch_sizes: Tensor | None
) -> Tensor:
    if keep is None:
        return F.linear(x, weight, bias)
    sizes = _sizes(x, batch_sizes)
    y = _MaskedLinear.apply(x.flatten(0, -2), weight, bias, keep.to(x.device), sizes)  # [R, N]
    return y.view(*x.shape[:-1], weight.shape[0])


def _sizes(x: Tensor, batch_sizes: Tensor | None) -> list[int]:
    return [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()


# ------------------------------------------------------------ the LSTM recurrence


class _LSTM(Function):
    @staticmethod
    def forward(
        ctx: Any, gates_x: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor,
        keep: Keep | None, sizes: list[int], reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        acc = _sum_dtype(gates_x)
        gates = gates_x.new_empty(gates_x.shape, dtype=acc)  # [R, 4H], activated
        cells = gates.new_empty(gates.shape[0], h0.shape[1])  # [R, H]
        hidden = gates_x.new_empty(cells.shape)  # [R, H]
        h, c = h0.clone(), c0.to(acc, copy=True)  # the running state, [B, H]
        step = _Step(weight_hh, keep)
        for t, rows in _in_order(sizes, reverse):
            n = sizes[t]  # the sequences alive at t come first
            gates[rows] = gates_x[rows] + step.fp(h[:n], t)
            h_t, c_t = _gates_forward(gates[rows], c[:n])
            hidden[rows] = h[:n] = h_t.to(h.dtype)
            cells[rows] = c[:n] = c_t
        ctx.save_for_backward(gates, cells, hidden, weight_hh, h0, c0)
        ctx.keep, ctx.sizes, ctx.reverse = keep, sizes, reverse
        return hidden, h, c.to(c0.dtype)

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, d_h: Tensor, d_c: Tensor) -> Any:
        _refuse_double_backward()
        gates, cells, hidden, weight_hh, h0, c0 = ctx.saved_tensors
        keep, sizes, reverse = ctx.keep, ctx.sizes, ctx.reverse
        d_gates = gates.new_empty(gates.shape)  # [R, 4H], before the activation
        dh, dc = d_h.to(gates.dtype, copy=True), d_c.to(gates.dtype, copy=True)
        c_before = _before(cells, c0.to(cells.dtype), sizes, reverse)  # [R, H]
        step = _Step(weight_hh, keep)
        for t, rows in _in_order(sizes, not reverse):
            n = sizes[t]
            dh_t = dh[:n] + d_hidden[rows]
            d_gates[rows], dc[:n] = _gates_backward(
                gates[rows], c_before[rows], cells[rows], dh_t, dc[:n]
            )
            dh[:n] = step.bp(d_gates[rows].to(weight_hh.dtype), t)
        d_gates = d_gates.to(weight_hh.dtype)
        dw = None
        if ctx.needs_input_grad[1]:
            dw = wg(_before(hidden, h0, sizes, reverse), d_gates, keep, sizes)
        return d_gates, dw, dh.to(h0.dtype), dc.to(c0.dtype), None, None, None


class _Step:
    """FP and BP of one step at a time, the weight packed once for the sequence."""

    def __init__(self, weight: Tensor, keep: Keep | None) -> None:
        self.keep = keep
        self.packed = weight.t().contiguous()  # [H, 4H]
        if isinstance(keep, KeepSets) and keep.steps == 1:
            self.packed = self.packed.index_select(0, keep.kept(0))

    def _of(self, keep: KeepSets, t: int) -> tuple[Tensor, Tensor]:
        """The kept units of step t and their rows of the packed weight."""
        K = keep.kept(t)
        return K, self.packed if keep.steps == 1 else self.packed.index_select(0, K)

    def fp(self, h: Tensor, t: int) -> Tensor:
        if isinstance(self.keep, KeepSets):
            K, packed = self._of(self.keep, t)
            return (h.index_select(1, K) @ packed).mul_(self.keep.scale)
        return self._masked(h, t) @ self.packed

    def bp(self, d_gates: Tensor, t: int) -> Tensor:
        if isinstance(self.keep, KeepSets):
            K, packed = self._of(self.keep, t)
            dh = d_gates.new_zeros(d_gates.shape[0], self.keep.width)
            return dh.index_copy_(1, K.long(), (d_gates @ packed.t()).mul_(self.keep.scale))
        return self._masked(d_gates @ self.packed.t(), t)

    def _masked(self, x: Tensor, t: int) -> Tensor:
        return x if self.keep is None else self.keep[t].apply(x, torch.tensor([x.shape[0]]))


def _in_order(sizes: list[int], reverse: bool) -> list[tuple[int, slice]]:
    steps = list(enumerate(_rows(sizes)))
    return steps[::-1] if reverse else steps


def _before(rows: Tensor, first: Tensor, sizes: list[int], reverse: bool) -> Tensor:
    """The state that enters each position, as rows, from the states that leave and the first."""
    at = _rows(sizes)
    if reverse:  # sequences that start at t enter with `first`
        later = [*sizes[1:], 0]
        parts = [
            p
            for t, (n, m) in enumerate(zip(sizes, later))
            for p in ((rows[at[t + 1]], first[m:n]) if m else (first[:n],))
        ]
    else:
        parts = [first[: sizes[0]]]
        parts += [rows[at[t - 1]][: sizes[t]] for t in range(1, len(sizes))]
    return torch.cat(parts)


@eager  # loops over steps whose sizes only the data know
def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    keep = None if keep is None else keep.to(gates_x.device)
    sizes = _sizes(gates_x, batch_sizes)
    hidden, h_n, c_n = _LSTM.apply(gates_x.flatten(0, -2), weight_hh, h, c, keep, sizes, reverse)
    return hidden.view(*gates_x.shape[:-1], hidden.shape[-1]), h_n, c_n


def lstm_layer(
    x: Tensor,
    keep: Keep | None,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    state_keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    gates_x = masked_linear(x, keep, weight_ih, bias, batch_sizes)  # [T, B, 4H] or packed
    return lstm(gates_x, weight_hh, h, c, state_keep, batch_sizes, reverse)


# ------------------------------------------------------------ the gates of one step


def _gates_forward(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Activates the gates ``[n, 4H]`` in place; gives h and c ``[n, H]``."""
    H = c.shape[1]
    gates[:, : 2 * H].sigmoid_()
    gates[:, 2 * H : 3 * H].tanh_()
    gates[:, 3 * H :].sigmoid_()
    i, f, g, o = gates.chunk(4, 1)
    c = torch.addcmul(f * c, i, g)
    return o * torch.tanh(c), c


def _gates_backward(
    gates: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor]:
    """From activated gates to their gradient before the activation, and the one of c_before."""
    i, f, g, o = gates.chunk(4, 1)
    tanh_c = torch.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    d_gates = torch.cat(
        [
            dc * g * i * (1 - i),
            dc * c_before * f * (1 - f),
            dc * i * (1 - g * g),
            dh * tanh_c * o * (1 - o),
        ],
        1,
    )  # [n, 4H]
    return d_gates, dc * f


class _Gates(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = gates.clone()
        h, c_new = _gates_forward(gates, c)
        ctx.save_for_backward(gates, c, c_new)
        return h, c_new

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
        _refuse_double_backward()
        gates, c, c_new = ctx.saved_tensors
        return _gates_backward(gates, c, c_new, dh, dc)


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return _Gates.apply(gates, c)


# ------------------------------------------------------------ stepwise, deferred weight gradient


class _Steps:
    """What the steps of one prepared weight leave behind for its one gradient."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = weight.t().contiguous()  # [D, N]
        self.inputs: list[tuple[Tensor, Tensor | None, float]] = []  # x or x[:, K], K, scale
        self.grads = Stash[Tensor]()  # dy

    def weight_grad(self) -> tuple[Tensor, Tensor]:
        """WG and the bias gradient over all steps that ran backward in this pass."""
        packed = self.packed
        dw = torch.zeros(packed.shape, dtype=_sum_dtype(packed), device=packed.device)  # [D, N]
        db = dw.new_zeros(packed.shape[1])
        dense: list[tuple[Tensor, Tensor]] = []
        for step, dy in self.grads.take():
            x, K, scale = self.inputs[step]
            db += dy.sum(0)
            if K is None:
                dense.append((x, dy))
            else:
                dw.index_add_(0, K, (x.t() @ dy).to(dw.dtype), alpha=scale)
        if dense:
            x, dy = (torch.cat(parts) for parts in zip(*dense))
            dw += x.t() @ dy
        return dw.t().to(packed.dtype).contiguous(), db.to(packed.dtype)


class _DeferredWeightGrad(Function):
    """A token that every step takes, so that this backward runs once theirs have."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, steps: _Steps) -> Tensor:  # noqa: ARG004 - bias is there for its gradient
        ctx.steps = steps
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        _refuse_double_backward()
        dw, db = ctx.steps.weight_grad()
        return dw, db if ctx.needs_input_grad[1] else None, None


class _MaskedLinearStep(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, steps: _Steps,  # noqa: ARG004 - token orders backward
        bias: Tensor | None, keep: Keep | None, t: int,
    ) -> Tensor:  # fmt: skip
        if isinstance(keep, KeepSets):
            K, scale = keep.kept(t), keep.scale
            x, packed = x.index_select(1, K), steps.packed.index_select(0, K)
            y = (x @ packed).mul_(scale)
        else:
            K, scale = None, 1.0
            x = x if keep is None else keep[t].apply(x, torch.tensor([len(x)]))
            y = x @ steps.packed
        ctx.steps, ctx.keep, ctx.t = steps, keep, t
        if ctx.needs_input_grad[1]:
            ctx.step = len(steps.inputs)
            steps.inputs.append((x.detach(), K, scale))  # with its graph it would be a cycle
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        _refuse_double_backward()
        dx = token = None
        if ctx.needs_input_grad[1]:
            ctx.steps.grads.put(ctx.step, dy)
            token = dy.new_zeros(())
        if ctx.needs_input_grad[0]:
            packed, keep = ctx.steps.packed, ctx.keep
            if isinstance(keep, KeepSets):
                K = keep.kept(ctx.t)
                dx = dy.new_zeros(dy.shape[0], keep.width)
                product = dy @ packed.index_select(0, K).t()
                dx.index_copy_(1, K.long(), product.mul_(keep.scale))
            else:
                dx = dy @ packed.t()
                if keep is not None:
                    dx = keep[ctx.t].apply(dx, torch.tensor([len(dx)]))
        return dx, token, None, None, None, None


class Prepared:
    """A packed weight for one forward and backward pass, used step by step."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.steps = _Steps(weight.detach())
        self.bias = None if bias is None else bias.detach()
        self.token = _DeferredWeightGrad.apply(weight, bias, self.steps)


def prepare(weight: Tensor, bias: Tensor | None) -> Prepared:
    return Prepared(weight, bias)


def masked_linear_step(handle: Prepared, x: Tensor, keep: Keep | None, t: int) -> Tensor:
    keep = None if keep is None else keep.to(x.device)
    return _MaskedLinearStep.apply(x, handle.token, handle.steps, handle.bias, keep, t)


# ------------------------------------------------------------ stepwise attention


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> PreparedMemory:
    return PreparedMemory(memory, lengths, attend_fp, attend_bp)


# ------------------------------------------------------------ projection and likelihood

# So many logits at a time: read and written several times, they must stay in the cache.
CHUNK = 160_000


def projected_nll(
    x: Tensor,
    keep: Keep | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    batch_sizes: Tensor | None,
    label_smoothing: float,
    factor: float,
) -> tuple[Tensor, Tensor]:
    logits = masked_linear(x, keep, weight, bias, batch_sizes).flatten(0, -2)  # [R, V]
    return _NLL.apply(logits, targets.flatten(), label_smoothing, factor)


class _NLL(Function):
    """``factor * sum(NLL)``, and the hits; consumes its logits: they become their own gradient,
    softmax minus one-hot, as soon as they are there."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, smoothing: float, factor: float
    ) -> tuple[Tensor, Tensor]:
        wants_grad = ctx.needs_input_grad[0]
        # In half precision the small factor of a mean would drown softmax in zeros: it waits for
        # the gradient that comes in, which a scaler has made large.
        ctx.later = factor if logits.dtype == torch.float16 else 1.0
        now = factor / ctx.later if wants_grad else None
        nll = logits.new_empty(len(logits), dtype=_sum_dtype(logits))
        hits = torch.zeros_like(targets, dtype=torch.bool)
        rows = max(CHUNK // max(logits.shape[1], 1), 1)
        for begin in range(0, len(logits), rows):
            part = slice(begin, begin + rows)
            _nll_(logits[part], targets[part], nll[part], hits[part], smoothing, now)
        if wants_grad:
            ctx.save_for_backward(logits)
        correct = hits.sum()
        ctx.mark_non_differentiable(correct)
        return nll.sum() * factor, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        _refuse_double_backward()
        (d_logits,) = ctx.saved_tensors
        return d_logits * (grad * ctx.later).to(d_logits.dtype), None, None, None


def _nll_(
    logits: Tensor, targets: Tensor, nll: Tensor, hits: Tensor, smoothing: float,
    factor: float | None,
) -> None:  # fmt: skip
    """NLL and hits of a few rows; logits become ``factor`` times the gradient, or waste."""
    x = logits.to(nll.dtype)  # itself, but for half precision
    V, target = x.shape[1], targets[:, None]
    torch.eq(x.argmax(1), targets, out=hits)
    top = x.amax(1, keepdim=True)
    away = top - x.gather(1, target)  # of the target from the largest logit
    x.sub_(top)
    if smoothing:
        away = (1 - smoothing) * away - smoothing * x.mean(1, keepdim=True)
    x.exp_()
    total = x.sum(1, keepdim=True)
    torch.add(total.log(), away, out=nll[:, None])
    if factor is not None:
        x.mul_(factor / total)
        if smoothing:
            x.sub_(factor * smoothing / V)
        x.scatter_add_(1, target, x.new_full((), -factor * (1 - smoothing)).expand_as(target))
        if x is not logits:
            logits.copy_(x)
