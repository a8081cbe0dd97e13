"""The private parts of torch that the package stands on, and what differs between its versions.

Seen in torch 2.1 to 2.13. ``tests/test_compat.py`` fails, with the name, where a part has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable, forward_ad
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["tree_leaves", "tree_map"]  # besides what is defined here

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

# From here on torch.compile can be told things while it traces, and knows the ops of others.
KNOWS_OPS = TORCH >= (2, 4)


def is_compiling() -> bool:
    """Return whether ``torch.compile`` is tracing the caller; an older compiler cannot tell."""
    return KNOWS_OPS and torch.compiler.is_compiling()


def is_recording() -> bool:
    """Return whether the ops that the caller runs become a graph: a compiler's, or a trace."""
    return is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def below_autograd() -> AbstractContextManager[Any]:
    """Return a context in which ops run without their gradients."""
    return torch._C._AutoDispatchBelowAutograd()


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


def _becomes_more() -> bool:
    """Return whether ops become a graph or are transformed, modes of dispatch left aside."""
    if is_recording() or in_transform():
        return True
    return torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch)


def is_unwatched() -> bool:
    """Return whether nobody sees which ops run: no compiler, trace, transform, profiler or dispatch
    mode."""
    watched = _becomes_more() or torch._C._autograd._profiler_enabled()
    return not (watched or torch._C._len_torch_dispatch_stack())


def is_eager() -> bool:
    """Return whether ops run on values and are no more than that, whoever looks on: no compiler,
    trace, transform or fakes; a profiler or a mode that counts may be there."""
    if _becomes_more():
        return False
    modes = map(torch._C._get_dispatch_stack_at, range(torch._C._len_torch_dispatch_stack()))
    return all(getattr(mode, "_mode_key", None) is None for mode in modes)


_PLAIN = Tensor, nn.Parameter


def is_plain(x: Tensor) -> bool:
    """Return whether x is what it seems: of no subclass, which may be a compiler's or hold its
    tensors within, and no batch of ``vmap`` or else without memory. Only such a tensor may go past
    torch's dispatcher."""
    if type(x) not in _PLAIN:
        return False
    try:
        return x.data_ptr() != 0 or not x.numel()
    except RuntimeError:
        return False


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


def lstm_cell(gates_x: Tensor, gates_h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do the pointwise part of an LSTM step in one launch, as ``nn.LSTMCell`` does it on CUDA.

    Args:
        gates_x, gates_h: ``[B, 4H]``: both products, biases included.
        c: ``[B, H]``.

    Returns:
        The new h and c, and the activated gates ``[B, 4H]``.
    """
    return torch.ops.aten._thnn_fused_lstm_cell(gates_x, gates_h, c)


def lstm_cell_backward(
    dh: Tensor, dc: Tensor, c_before: Tensor, c: Tensor, gates: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the gates ``[B, 4H]`` and of c_before, of :func:`lstm_cell`."""
    given = dh, dc, c_before, c, gates, False
    d_gates, d_c, _ = torch.ops.aten._thnn_fused_lstm_cell_backward_impl(*given)
    return d_gates, d_c


def gru_cell(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Do the pointwise part of a GRU step in one launch, as ``nn.GRUCell`` does it on CUDA.

    Returns:
        The new h, and what :func:`gru_cell_backward` needs, ``[B, 5H]``.
    """
    return torch.ops.aten._thnn_fused_gru_cell(gates_x, gates_h, h)


def gru_cell_backward(dh: Tensor, workspace: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of both products ``[B, 3H]`` and of h, of :func:`gru_cell`."""
    d_x, d_h, d_before, *_ = torch.ops.aten._thnn_fused_gru_cell_backward(dh, workspace, False)
    return d_x, d_h, d_before


def softmax_backward(dy: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of what a softmax along the last axis was taken of."""
    return torch.ops.aten._softmax_backward_data(dy, y, -1, y.dtype)


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


def without_dispatch_modes() -> AbstractContextManager[Any]:
    """Return a context in which nobody looks at the ops that torch dispatches: whoever counts
    them, say."""
    return _disable_current_modes()


def flat_weights(layers: nn.RNNBase) -> tuple[list[Tensor | None], list[str]]:
    """Return the weights of ``nn.LSTM`` and the like, as they are handed to cuDNN, and names."""
    return layers._flat_weights, layers._flat_weights_names


def has_hooks(module: nn.Module) -> bool:
    """Return whether something is called before or after a module's forward."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Return whether something is called with a parameter's gradient."""
    after: Any = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return bool(parameter._backward_hooks or after)


def is_program(path: str) -> bool:
    """Return whether ``torch.load`` would hand a zip file on to ``torch.jit.load``, and run it."""
    with torch.serialization._open_zipfile_reader(path) as file:
        return torch.serialization._is_torchscript_zip(file)


def tensor_builders() -> dict[tuple[str, str], Callable[..., Any]]:
    """Return what a file may name to have its tensors built, by module and name."""
    names = "_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2"
    return {("torch._utils", name): getattr(torch._utils, name) for name in names}


def tf32() -> tuple[str, str]:
    """Return in which precision CUDA multiplies float32, in products and in recurrent layers."""
    if TORCH >= (2, 9):  # from there on the older flags cannot always be read
        of = torch._C._get_fp32_precision_getter
        return of("cuda", "matmul"), of("cuda", "rnn")
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return ("tf32" if allowed[0] else "ieee"), ("tf32" if allowed[1] else "ieee")


def bfloat16_products() -> bool:
    """Return whether float32 on the CPU is to be multiplied in bfloat16."""
    if TORCH >= (2, 9):  # from there on the older switch cannot always be read
        return bool(torch._C._get_fp32_precision_getter("mkldnn", "matmul") == "bf16")
    return torch.get_float32_matmul_precision() == "medium"
