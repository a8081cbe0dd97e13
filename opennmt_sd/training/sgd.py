"""SGD that reads each gradient once for the norm and once for the step, and never writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opennmt_sd.compat import has_gradient_hooks

LARGE = 1 << 20  # weights of an embedding from which on its gradient is worth being rows alone


class ClippedSGD(torch.optim.SGD):
    """``clip_grad_norm_`` and ``torch.optim.SGD`` at once: the weights are equal within rounding,
    and bit for bit where nothing is clipped and nothing decays.

    State and checkpoints are those of ``torch.optim.SGD``. A gradient may be sparse.

    Args:
        parameters, lr, momentum, weight_decay: as in ``torch.optim.SGD``.
        max_norm: the largest norm of the whole gradient; None (default) does not clip.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(parameters, lr, momentum=momentum, weight_decay=weight_decay)
        self.max_norm = max_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found = [
            (p, p.grad.coalesce() if p.grad.is_sparse else p.grad, group)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        factor = clip_factor([grad for _, grad, _ in found], self.max_norm)
        for p, grad, group in found:
            self._change(p, grad, factor, group)
        return loss

    def _change(self, p: Tensor, grad: Tensor, factor: float, group: dict[str, Any]) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if momentum:
            state = self.state[p]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(p)
            change = state["momentum_buffer"].mul_(momentum).add_(grad, alpha=factor)
            if decay:
                change.add_(p, alpha=decay)
        elif decay:  # not taken off p by itself, where it may be less than p's last digit
            change = p.mul(decay).add_(grad, alpha=factor)
        else:
            p.add_(grad, alpha=-lr * factor)
            return
        p.add_(change, alpha=-lr)


def clip_factor(grads: Sequence[Tensor], max_norm: float | None) -> float:
    """Return what ``clip_grad_norm_`` would multiply gradients by.

    Args:
        grads: sparse ones coalesced.
    """
    if max_norm is None or not grads:
        return 1.0
    values = [grad.values() if grad.is_sparse else grad for grad in grads]
    norms = torch.stack([torch.linalg.vector_norm(value) for value in values])
    return float((max_norm / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0))


@contextmanager
def rows_alone(model: nn.Module) -> Iterator[None]:
    """Let the gradient of a large embedding be sparse: the rows that were looked up. The whole of
    it would be cleared, and read again and again, at each update."""
    modules: Iterable[Any] = model.modules()
    found = [module for module in modules if _can_be_sparse(module)]
    for module in found:
        module.sparse = True
    try:
        yield
    finally:
        for module in found:
            module.sparse = False


def _can_be_sparse(module: Any) -> bool:
    """Return whether a module is a large embedding whose gradient is dense, and need not be: nobody
    else sees it."""
    weight = getattr(module, "weight", None)
    return (
        getattr(module, "sparse", None) is False
        and not getattr(module, "scale_grad_by_freq", False)
        and getattr(module, "mode", "sum") != "max"  # of nn.EmbeddingBag
        and isinstance(weight, nn.Parameter)  # it is no function of another one
        and weight.numel() >= LARGE
        and weight.dtype in (torch.float32, torch.float64)
        and not has_gradient_hooks(weight)
    )
