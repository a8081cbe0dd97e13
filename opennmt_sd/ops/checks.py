"""What the ops demand of their arguments: one message with the value, the rule and the remedy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from opennmt_sd.compat import in_forward_mode, is_batch, is_compiling
from opennmt_sd.dropout import Keep
from opennmt_sd.ops.engine import GRULayer, LSTMLayer


def check_rows(
    x: Tensor, batch_sizes: Tensor | None, name: str, width: str, *, sequences: bool = True
) -> tuple[int, int | None]:
    """Return T and B of time-first or packed rows. ``sequences``: these go on from step to step,
    so that none may grow; else the rows of a step are any number.

    While a compiler traces, nobody knows what batch_sizes hold: B is then None, and the op itself
    refuses sizes that do not fit.
    """
    check_floating(x, name)
    if batch_sizes is None:
        if x.dim() != 3:
            raise ValueError(
                f"{name} must be [T, B, {width}] (time first), or packed [rows, {width}] with "
                f"batch_sizes; got {list(x.shape)}"
            )
        return x.shape[0], x.shape[1]
    if x.dim() != 2:
        raise ValueError(f"packed {name} must be [sum(batch_sizes), {width}], got {list(x.shape)}")
    if not isinstance(batch_sizes, Tensor):
        raise TypeError(f"batch_sizes must be a tensor, got {type(batch_sizes).__name__}")
    kind = batch_sizes.dtype, batch_sizes.device.type, batch_sizes.dim()
    if kind != (torch.int64, "cpu", 1):
        raise ValueError(
            "batch_sizes must be int64 [T] on the CPU, as in a PackedSequence; got "
            f"{batch_sizes.dtype} {list(batch_sizes.shape)} on {batch_sizes.device}"
        )
    if is_compiling():
        return batch_sizes.shape[0], None
    sizes = batch_sizes.tolist()
    if any(b < 0 for b in sizes):
        raise ValueError(f"batch_sizes must not be negative, got {sizes}")
    if sequences and (0 in sizes or any(a < b for a, b in zip(sizes, sizes[1:]))):
        raise ValueError(f"batch_sizes must be positive and must not grow, got {sizes}")
    if sum(sizes) != x.shape[0]:
        raise ValueError(f"batch_sizes add up to {sum(sizes)}, {name} has {x.shape[0]} rows")
    return len(sizes), max(sizes, default=0)


def check_layer(layer: LSTMLayer | GRULayer, gates: int, **states: Tensor) -> None:
    """Check a recurrent layer whose weights have so many gates, and the states that it begins with,
    ``[B, H]`` each."""
    x, weight_ih, weight_hh = layer.x, layer.weight_ih, layer.weight_hh
    T, B = check_rows(x, layer.batch_sizes, "x", "D")
    if T == 0:
        raise ValueError(f"x must have at least one step, got {list(x.shape)}")
    D, H = x.shape[-1], weight_hh.shape[-1]
    check_weight(weight_ih, D, "weight_ih")
    check_weight(weight_hh, H, "weight_hh")
    if not weight_ih.shape[0] == weight_hh.shape[0] == gates * H:
        raise ValueError(
            f"weight_ih [{gates}H, D] and weight_hh [{gates}H, H] do not fit: "
            f"{list(weight_ih.shape)} and {list(weight_hh.shape)}"
        )
    check_bias(layer.bias, gates * H)
    for name, state in states.items():
        check_state(name, state, B, H)
    check_keep(layer.keep, T, B, D)
    check_keep(layer.state_keep, T, B, H)


def check_floating(x: Tensor, name: str) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}")


def check_keep(keep: Keep | None, T: int, B: int | None, D: int, *, ended: bool = False) -> None:
    """Check what is kept of ``[T, B, D]``. ``ended``: there may be fewer samples than it is for."""
    if keep is None:
        return
    if not isinstance(keep, Keep):
        raise TypeError(f"keep must come from DropoutPattern.draw, got {type(keep).__name__}")
    if keep.width != D:
        raise ValueError(f"keep sets of width {keep.width} do not fit an input of width {D}")
    if keep.steps not in (1, T):
        raise ValueError(
            f"keep sets of {keep.steps} steps do not fit an input of {T} steps (1 or {T} are "
            "needed); ops take the time first: [T, B, D]"
        )
    samples = keep.samples
    if B is None or samples is None:
        return
    if samples < B or (samples > B and not ended):
        raise ValueError(f"what is kept of a batch of {samples} does not fit one of {B}")


def check_weight(weight: Tensor, D: int, name: str = "weight") -> None:
    if weight.dim() != 2 or weight.shape[1] != D:
        raise ValueError(f"{name} must be [N, {D}] as in nn.Linear, got {list(weight.shape)}")


def check_bias(bias: Tensor | None, N: int, name: str = "bias") -> None:
    if bias is not None and bias.shape != (N,):
        raise ValueError(f"{name} must be [{N}], got {list(bias.shape)}")


def check_alike(**tensors: Tensor | None) -> None:
    """Check that all are of one device and one dtype."""
    for what in ("device", "dtype"):
        check_one(what, **tensors)


def check_one(what: str, **tensors: Tensor | None) -> None:
    """Check that all are of one ``"device"``, or of one ``"dtype"``."""
    kinds = {name: getattr(t, what) for name, t in tensors.items() if t is not None}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        raise ValueError(f"all inputs need one {what}: {listed}")


def check_state(name: str, state: Tensor, B: int | None, H: int) -> None:
    if state.dim() != 2 or state.shape[1] != H or B not in (None, state.shape[0]):
        batch = "B" if B is None else B
        raise ValueError(f"{name} must be [{batch}, {H}] (batch, hidden), got {list(state.shape)}")


def refuse_second_derivatives(engine: str, *gradients: Tensor | None) -> None:
    """Refuse, in a backward pass of an engine, to be differentiated in turn.

    Raises:
        RuntimeError: double backward, or a gradient that carries a tangent.
    """
    if torch.is_grad_enabled():
        _refuse("double backward (create_graph=True)", engine)
    if in_forward_mode():
        given = [d for d in gradients if d is not None]
        if any(unpack_dual(d).tangent is not None for d in given):
            _refuse("forward mode through a backward pass", engine)


def refuse_batched_gradients(engine: str, *gradients: Tensor | None) -> None:
    """Refuse to run several backward passes as one, where a kernel knows one gradient at a time.

    Raises:
        RuntimeError: ``is_grads_batched=True``, or ``jacobian(..., vectorize=True)``.
    """
    if any(d is not None and is_batch(d) for d in gradients):
        _refuse("a batch of gradients (is_grads_batched=True)", engine)


def _refuse(what: str, engine: str) -> None:
    raise RuntimeError(
        f"{what} is not supported by the {engine} engine: run the forward pass under "
        "opennmt_sd.ops.use('naive'), which supports it"
    )
