"""The private parts of torch that the package stands on, and what differs between its versions.

Seen in torch 2.1 to 2.13. ``tests/test_compat.py`` fails, with the name, where a part has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable, forward_ad

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

# From here on torch.compile can be told things while it traces, and knows the ops of others.
KNOWS_OPS = TORCH >= (2, 4)


def is_compiling() -> bool:
    """Return whether ``torch.compile`` is tracing the caller; an older compiler cannot tell."""
    return KNOWS_OPS and torch.compiler.is_compiling()


def backward_pass() -> int:
    """Return autograd's number of the backward pass that runs in this thread; -1 outside one.

    A pass inside another (reentrant checkpointing, a hook that calls backward) has its own.
    """
    return torch._C._current_graph_task_id()


def after_backward_pass(call: Callable[[], Any]) -> None:
    """Call something once the backward pass that runs in this thread is over."""
    Variable._execution_engine.queue_callback(call)


def in_forward_mode() -> bool:
    """Return whether forward-mode differentiation is on (``torch.func.jvp``, ``dual_level``)."""
    return forward_ad._current_level >= 0


def in_transform() -> bool:
    """Return whether tensors may be those of ``torch.func`` (grad, vmap, ...) or forward mode."""
    return in_forward_mode() or torch._C._are_functorch_transforms_active()


def is_batch(x: Tensor) -> bool:
    """Return whether x stands for a batch of tensors, as ``vmap`` has them: it has no memory."""
    if type(x) is not Tensor:  # a compiler's
        return False
    try:
        x.data_ptr()
    except RuntimeError:
        return True
    return False


def mark_constant(function: Any) -> None:
    """Tell torch's compiler that a function's result never changes, without importing it."""
    function._dynamo_marked_constant = True


def lstm(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run torch's own LSTM, as ``nn.LSTM`` calls it."""
    return torch._VF.lstm(*given)


def gru(*given: Any) -> tuple[Tensor, Tensor]:
    """Run torch's own GRU, as ``nn.GRU`` calls it."""
    return torch._VF.gru(*given)


_EMPTY = torch.empty(0, device="cpu")


def version(x: Tensor) -> int:
    """Return how often x was changed in place."""
    return x._version


def version_counter(x: Tensor) -> Tensor:
    """Return a tensor that counts the changes of x, and does not keep its memory alive."""
    counter = x.detach()
    with suppress(RuntimeError):  # torch's checks of op schemas know no assignment to .data
        counter.data = _EMPTY if x.device.type == "cpu" else x.new_empty(0)  # the count stays x's
    return counter
