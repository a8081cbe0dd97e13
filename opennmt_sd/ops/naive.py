"""The naive engine: dense, masked, in plain PyTorch. Written to be read; every engine must agree.

It supports whatever autograd supports, double backward included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from opennmt_sd.dropout import Keep
from opennmt_sd.eager import eager
from opennmt_sd.ops.attention import attend_fp, first


def masked_linear(
    x: Tensor, keep: Keep | None, weight: Tensor, bias: Tensor | None, batch_sizes: Tensor | None
) -> Tensor:
    return F.linear(x if keep is None else keep.apply(x, batch_sizes), weight, bias)


@eager  # a loop over the steps
def lstm(
    gates_x: Tensor,
    weight_hh: Tensor,
    h: Tensor,
    c: Tensor,
    keep: Keep | None,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if batch_sizes is None:
        steps = list(gates_x.unbind(0))  # T of [B, 4H]
    else:
        steps = list(gates_x.split(batch_sizes.tolist()))  # T of [batch_sizes[t], 4H]
    outputs = [h] * len(steps)
    order = range(len(steps))
    for t in reversed(order) if reverse else order:
        n = steps[t].shape[0]  # the sequences that are alive at t come first
        h_t, c_t = h[:n], c[:n]
        if keep is not None:
            h_t = keep[t].apply(h_t, torch.tensor([n]))
        h_t, c_t = lstm_gates(steps[t] + F.linear(h_t, weight_hh), c_t)
        outputs[t] = h_t
        h, c = torch.cat([h_t, h[n:]]), torch.cat([c_t, c[n:]])
    if batch_sizes is None:
        return torch.stack(outputs), h, c
    return torch.cat(outputs), h, c


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


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, dim=-1)  # each [..., H]
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


# torch would skip targets of -100 in silence: out of range, they are a mistake.
NO_TARGET = torch.iinfo(torch.int64).min


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
    logits, targets = logits.to(torch.promote_types(logits.dtype, torch.float32)), targets.flatten()
    nll = F.cross_entropy(
        logits, targets, reduction="sum", label_smoothing=label_smoothing, ignore_index=NO_TARGET
    )
    return nll * factor, (logits.argmax(1) == targets).sum()


@dataclass(eq=False)
class Prepared:
    weight: Tensor
    bias: Tensor | None


def prepare(weight: Tensor, bias: Tensor | None) -> Prepared:
    return Prepared(weight, bias)


def masked_linear_step(handle: Prepared, x: Tensor, keep: Keep | None, t: int) -> Tensor:
    keep = None if keep is None else keep[t]
    return masked_linear(x, keep, handle.weight, handle.bias, torch.tensor([len(x)]))


@dataclass(eq=False)
class PreparedMemory:
    memory: Tensor
    lengths: Tensor | None

    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        return attend_fp(*first(self.memory, self.lengths, len(query)), query)


def prepare_memory(memory: Tensor, lengths: Tensor | None) -> PreparedMemory:
    return PreparedMemory(memory, lengths)
