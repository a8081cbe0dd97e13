"""Which linear layers may be computed from their parameters, without being called."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

from opennmt_sd.compat import has_hooks


def is_plain_linear(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Say whether a layer is what its weight and bias say, and no more.

    A subclass is not (LoRA, quantisation, parametrizations), nor is one with hooks (pruning, and
    weight norm of old).
    """
    return type(linear) is nn.Linear and not has_hooks(linear)
