"""Makes functions of tensors known to torch as ops, so that ``torch.compile``, FLOP counters and
``torch.library.opcheck`` understand them; before torch 2.4, autograd functions call them.

Source: the Custom Operators manual of PyTorch 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

CUSTOM_OPS = hasattr(torch.library, "register_autograd")  # torch >= 2.4

# Not torch.library.custom_op: its checks of every call cost 20 us, a tenth of one step.
_library = torch.library.Library("opennmt_sd", "FRAGMENT")


def register(
    schema: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    flops: Callable[..., int],
    *,
    setup: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """An op.

    Args:
        schema: ``"name(Tensor x, ...) -> Tensor"``.
        function: takes and gives CPU tensors; what it gives shares no memory with what it takes.
        fake: the same, with empty results: shapes and dtypes alone.
        flops: of its matrix products, from the same arguments.
        setup: ``setup(ctx, inputs, output)`` saves what ``backward(ctx, *grads)`` needs. Default:
            no gradient.
    """
    name = schema.split("(", maxsplit=1)[0]
    _library.define(schema)
    _library.impl(name, function, "CPU")
    packet = getattr(torch.ops.opennmt_sd, name)

    def formula(*args: Any, **_: Any) -> int:  # the result comes under a name that has changed
        return flops(*args)

    flop_registry[packet] = formula
    op: Callable[..., Any] = packet.default
    if CUSTOM_OPS:
        torch.library.register_fake(f"opennmt_sd::{name}", fake, lib=_library)
        if backward is not None:
            torch.library.register_autograd(
                f"opennmt_sd::{name}", backward, setup_context=setup, lib=_library
            )
    elif backward is not None:
        members = {"forward": op, "setup_context": setup, "backward": backward}
        statics = {n: staticmethod(member) for n, member in members.items()}  # type: ignore[arg-type]
        op = type(name, (torch.autograd.Function,), statics).apply  # type: ignore[attr-defined]
    return op
