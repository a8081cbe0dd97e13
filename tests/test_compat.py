"""The private parts of torch are where ``compat`` takes them from, and mean what it says."""

from __future__ import annotations

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from opennmt_sd import compat


def test_the_version_is_read() -> None:
    assert tuple(map(int, torch.__version__.split(".")[:2])) == compat.TORCH
    assert (hasattr(torch.library, "register_autograd")) is compat.KNOWS_OPS


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (torch._C, "_current_graph_task_id"),
        (torch.autograd.Variable._execution_engine, "queue_callback"),
        (forward_ad, "_current_level"),
        (torch._C, "_are_functorch_transforms_active"),
        (torch._C._autograd, "_profiler_enabled"),
        (torch._C, "_len_torch_dispatch_stack"),
        (torch._C, "_get_dispatch_stack_at"),
        (torch._C, "_dispatch_tls_is_dispatch_key_included"),
        (torch._C.DispatchKey, "PreDispatch"),
        (FakeTensorMode(), "_mode_key"),
        (torch._C, "_AutoDispatchBelowAutograd"),
        (torch.Tensor, "_version"),
        (torch.Tensor, "_backward_hooks"),
        (torch.nn.LSTM(1, 1), "_all_weights"),
        (torch._VF, "lstm"),
        (torch._VF, "gru"),
        (torch.utils._python_dispatch, "_disable_current_modes"),
        (torch.utils._pytree, "tree_leaves"),
        (torch.utils._pytree, "tree_map"),
        (torch.nn.LSTM(2, 2), "_flat_weights_names"),
        (torch.nn.Linear(1, 1), "_forward_pre_hooks"),
        (torch._utils, "_rebuild_tensor_v2"),
        (torch._utils, "_rebuild_parameter"),
        (torch.serialization, "_open_zipfile_reader"),
        (torch.serialization, "_is_torchscript_zip"),
        (torch.ops.aten, "_thnn_fused_lstm_cell"),
        (torch.ops.aten, "_thnn_fused_lstm_cell_backward_impl"),
        (torch.ops.aten, "_thnn_fused_gru_cell"),
        (torch.ops.aten, "_thnn_fused_gru_cell_backward"),
        (torch.ops.aten, "_softmax_backward_data"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_private_part_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name), f"torch {torch.__version__} has moved {name}: see compat.py"


def test_a_pass_has_its_number_and_an_end() -> None:
    """Inside a pass, one of its own; what was asked for comes after it."""
    events: list[object] = []

    def hook(_: torch.Tensor) -> None:
        outer = compat.backward_pass()
        compat.after_backward_pass(lambda: events.append("over"))
        with torch.enable_grad():
            y = torch.ones(1, requires_grad=True) * 2
            y.register_hook(lambda _: events.append(compat.backward_pass() not in (outer, -1)))
            y.sum().backward()
        events.append(compat.backward_pass() == outer)

    x = torch.ones(1, requires_grad=True)
    x.register_hook(hook)
    (x * 1).sum().backward()
    assert events == [True, True, "over"]
    assert compat.backward_pass() == -1


def test_forward_mode_and_transforms_are_seen() -> None:
    seen: list[tuple[bool, bool]] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append((compat.in_forward_mode(), compat.in_transform()))
        return x.sum()

    x = torch.ones(2)
    look(x)
    torch.func.grad(look)(x)
    torch.func.vmap(look)(x[None])
    torch.func.jvp(look, (x,), (x,))
    with forward_ad.dual_level():
        look(x)
    assert seen == [(False, False), (False, True), (False, True), (True, True), (True, True)]
    thread = threading.Thread(target=look, args=(x,))
    thread.start()
    thread.join()
    assert seen[-1] == (False, False)


def test_a_batch_is_seen() -> None:
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: seen.append(compat.is_batch(grad)))
    for v, batched in ((torch.ones(2), False), (torch.ones(3, 2), True)):
        torch.autograd.grad(y, x, v, is_grads_batched=batched, retain_graph=True)
    torch.func.vmap(lambda x: (seen.append(compat.is_batch(x)), x)[1])(torch.ones(2, 3))
    assert seen == [False, True, True]
    assert not compat.is_batch(torch.ones(2, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_counter_of_changes_keeps_no_memory(dtype: torch.dtype) -> None:
    x = torch.zeros(3, dtype=dtype)
    counter = compat.version_counter(x)
    assert compat.version(counter) == compat.version(x) == 0
    x.view(3, 1).add_(1)
    assert compat.version(counter) == compat.version(x) == 1
    assert counter.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert x.tolist() == [1, 1, 1]


def test_nobody_looks_at_ops() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.ones(2, 2)
    with FlopCounterMode(display=False) as counter:
        with compat.without_dispatch_modes():
            x @ x
        assert counter.get_total_flops() == 0
        x @ x
    assert counter.get_total_flops() == 16


def test_tf32_is_read_from_both_flags() -> None:
    """Also where the flags were set by torch's older names, and by its newer ones."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for flags in ((True, False), (False, True)):
            matmul.allow_tf32, cudnn.allow_tf32 = flags
            assert tuple(name == "tf32" for name in compat.tf32()) == flags
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
