"""Which linear layers may be computed from their parameters, without being called."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn


def is_plain_linear(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Say whether a layer is what its weight and bias say, and no more.

    A subclass is not (LoRA, quantisation, parametrizations), nor is one with hooks (pruning, and
    weight norm of old).
    """
    hooks = linear._forward_pre_hooks or linear._forward_hooks
    return type(linear) is nn.Linear and not hooks
