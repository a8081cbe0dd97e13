"""Makes functions of tensors known to torch: custom ops where torch has them, so that
``torch.compile`` and ``torch.library.opcheck`` understand them; else autograd functions.

Source: the Custom Operators manual of PyTorch 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

NAMESPACE = "opennmt_sd"
CUSTOM_OPS = hasattr(torch.library, "custom_op")  # torch >= 2.4


def register(
    function: Callable[..., Any],
    fake: Callable[..., Any],
    setup: Optional[Callable[..., None]] = None,
    backward: Optional[Callable[..., Any]] = None,
) -> Callable[..., Any]:
    """``function`` as an op.

    Args:
        function: takes and gives tensors; never writes to its arguments.
        fake: the same with empty results: shapes and dtypes alone.
        setup: ``setup(ctx, inputs, output)`` saves what ``backward(ctx, *grads)`` needs; default:
            the op has no gradient.
    """
    if CUSTOM_OPS:
        name = f"{NAMESPACE}::{function.__name__}"
        op = torch.library.custom_op(name, function, mutates_args=())
        op.register_fake(fake)
        if backward is not None:
            op.register_autograd(backward, setup_context=setup)
        return op
    if backward is None:
        return function
    members = {"forward": function, "setup_context": setup, "backward": backward}
    statics = {name: staticmethod(member) for name, member in members.items()}
    return type(function.__name__, (torch.autograd.Function,), statics).apply  # type: ignore
