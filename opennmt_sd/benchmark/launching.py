"""Counts what a GPU would be asked to do, on a machine without one.

Models are on the meta device: tensors without data, which is a device like another for every choice
that is made by device, and which cannot be read back from. What CUDA has one op for, and meta has
not (a cuDNN call, a fused cell), counts as one.

A launch is an op that torch dispatches to the device and that is no view. It is what the host pays
for, some 5 us each; an op may be two kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode

from opennmt_sd import compat
from opennmt_sd.ops.dense import cells, gru, lstm

# They make a tensor and write nothing.
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach",
        "_unsafe_view", "lift_fresh", "alias", "set_", "resize_"}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts launches and waits.

    Attributes:
        names: of what was launched, how often.
        waits: how often the host read something back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.names.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name not in FREE and not _is_view(func) and _on_device((args, kwargs, out)):
            self.names[name] += 1
        return out


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _on_device(tree: Any) -> bool:
    return any(isinstance(x, Tensor) and x.device.type != "cpu" for x in compat.tree_leaves(tree))


@contextmanager
def counted(waited_for: Callable[[Tensor], Any] = lambda x: [0] * len(x)) -> Iterator[Launches]:
    """Count what happens inside, as CUDA would do it.

    Args:
        waited_for: what ``tolist`` gives of a tensor on the device.
    """
    launches = Launches()
    one = _Ones(launches)

    def wait(name: str, value: Callable[[Tensor], Any]) -> Any:
        real = getattr(Tensor, name)

        def read(x: Tensor, *given: Any) -> Any:
            if not x.is_meta:
                return real(x, *given)
            launches.waits[name] += 1
            return value(x)

        return mock.patch.object(Tensor, name, read)

    with ExitStack() as stack:
        for patch in (
            mock.patch.object(torch._VF, "lstm", one.lstm),
            mock.patch.object(torch._VF, "gru", one.gru),
            mock.patch.object(torch._VF, "lstm_cell", one.lstm_cell),
            mock.patch.object(torch._VF, "gru_cell", one.gru_cell),
            mock.patch.object(F, "dropout", one.dropout),
            mock.patch.object(torch, "segment_reduce", one.segment_reduce),
            *(
                mock.patch.object(module, "fused", return_value=True)
                for module in (cells, lstm, gru)
            ),
            mock.patch.object(compat, "lstm_cell", one.fused_lstm),
            mock.patch.object(compat, "lstm_cell_backward", one.fused_lstm_backward),
            mock.patch.object(compat, "gru_cell", one.fused_gru),
            mock.patch.object(compat, "gru_cell_backward", one.fused_gru_backward),
            *(
                mock.patch.object(
                    module, "_get_foreach_kernels_supported_devices", return_value=["meta"]
                )
                for module in (_foreach_utils, optimizer)
            ),
            wait("item", lambda _: 0),
            wait("__bool__", lambda _: True),
            wait("__int__", lambda _: 0),
            wait("__float__", lambda _: 0.0),
            wait("tolist", waited_for),
            wait("masked_select", lambda x: x.flatten().clone()),  # whose size the data say
            wait("cpu", lambda x: torch.arange(x.numel()).view(x.shape).to(x.dtype)),
        ):
            stack.enter_context(patch)
        stack.enter_context(launches)
        yield launches


class _Fused(Function):
    """One launch forward, one backward: what is given becomes tensors of given shapes."""

    @staticmethod
    def forward(
        ctx: Any, launches: Launches, name: str, shapes: Sequence[Sequence[int]], *given: Tensor
    ) -> tuple[Tensor, ...]:
        launches.names[name] += 1
        ctx.launches, ctx.name = launches, name
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        return tuple(given[0].new_empty(shape) for shape in shapes)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        ctx.launches.names[f"{ctx.name}_backward"] += 1
        return None, None, None, *(torch.empty_like(x) for x in ctx.saved_tensors)


class _Ones:
    """What CUDA does in one launch each way."""

    def __init__(self, launches: Launches) -> None:
        self.launches = launches

    def fused(
        self, name: str, shapes: Sequence[Sequence[int]], *given: Tensor
    ) -> tuple[Tensor, ...]:
        return _Fused.apply(self.launches, name, shapes, *given)

    def dropout(self, x: Tensor, p: float = 0.5, training: bool = True, _: bool = False) -> Tensor:
        return self.fused("native_dropout", [x.shape], x)[0] if training and p else x

    def segment_reduce(self, x: Tensor, _: str, *, lengths: Tensor, **__: Any) -> Tensor:
        return self.fused("segment_reduce", [(len(lengths), *x.shape[1:])], x)[0]

    def _layers(self, *given: Any) -> tuple[Tensor, ...]:
        packed = not isinstance(given[3], bool)
        x, state, weights = given[0], *(given[2:4] if packed else given[1:3])
        flags = given[4:] if packed else given[3:]
        width = weights[1].shape[1] * (2 if flags[4] else 1)
        state = state if isinstance(state, (tuple, list)) else [state]
        shapes = [(*x.shape[:-1], width), *(s.shape for s in state)]
        return self.fused("_cudnn_rnn", shapes, x, *state, *weights)

    lstm = gru = _layers

    def _cell(
        self, name: str, gates: Any, x: Tensor, state: Sequence[Tensor], weight_ih: Tensor,
        weight_hh: Tensor, bias_ih: Tensor | None = None, bias_hh: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        products = x @ weight_ih.t(), state[0] @ weight_hh.t()
        biases = [b for b in (bias_ih, bias_hh) if b is not None]
        return self.fused(name, [s.shape for s in state], *products, *gates(state), *biases)

    def lstm_cell(self, x: Tensor, state: Sequence[Tensor], *weights: Any) -> tuple[Tensor, ...]:
        return self._cell("_thnn_fused_lstm_cell", lambda s: s[1:], x, state, *weights)

    def gru_cell(self, x: Tensor, h: Tensor, *weights: Any) -> Tensor:
        return self._cell("_thnn_fused_gru_cell", lambda s: s, x, [h], *weights)[0]

    def fused_lstm(
        self, gates_x: Tensor, gates_h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        shapes = [c.shape, c.shape, gates_x.shape]
        h, c, gates = self.fused("_thnn_fused_lstm_cell", shapes, gates_x, gates_h, c)
        return h, c, gates

    def fused_lstm_backward(
        self, dh: Tensor, dc: Tensor, c_before: Tensor, c: Tensor, gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert dh.shape == dc.shape == c_before.shape == c.shape
        self.launches.names["_thnn_fused_lstm_cell_backward"] += 1
        return torch.empty_like(gates), torch.empty_like(c)

    def fused_gru(self, gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shapes = [h.shape, (len(h), 5 * h.shape[1])]
        new, workspace = self.fused("_thnn_fused_gru_cell", shapes, gates_x, gates_h, h)
        return new, workspace

    def fused_gru_backward(self, dh: Tensor, workspace: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.launches.names["_thnn_fused_gru_cell_backward"] += 1
        gates = (len(dh), 3 * dh.shape[1])
        return dh.new_empty(gates), workspace.new_empty(gates), torch.empty_like(dh)
