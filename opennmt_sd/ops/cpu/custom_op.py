"""Makes functions of records of tensors known to torch as ops, so that ``torch.compile``, FLOP
counters and ``torch.library.opcheck`` understand them; an older torch gets autograd functions.

The fields of a record (a NamedTuple, which may hold further records) are the arguments of the op:
its schema, and what is saved for backward, follow from them.

Source: the Custom Operators manual of PyTorch 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from opennmt_sd.compat import KNOWS_OPS, below_autograd, is_plain, is_recording, is_unwatched
from opennmt_sd.ops.cpu.layout import Layout, Record

# Not torch.library.custom_op: its checks of every call cost 20 us, a tenth of one step.
_library = torch.library.Library("opennmt_sd", "FRAGMENT")


class Autograd(NamedTuple):
    """The gradient of an op.

    Args:
        backward: ``backward(ctx, operands, further, gradients, needs)`` gives gradients by the
            operands' names; those that it leaves out are None. ``needs`` tells by name which are
            wanted.
        unneeded: names of operands that it does not need, and that come as None.
        further: ``further(ctx, outputs)`` gives tensors that it needs besides the operands.
    """

    backward: Callable[..., Mapping[str, Tensor | None]]
    unneeded: tuple[str, ...] = ()
    further: Callable[[Any, Any], Sequence[Tensor]] = lambda ctx, outputs: ()  # noqa: ARG005


def register(
    name: str,
    operands: type[Record],
    results: int,
    function: Callable[[Record], Any],
    fake: Callable[[Record], Any],
    flops: Callable[[Record], int],
    autograd: Autograd | None = None,
) -> Callable[[Record], Any]:
    """Make an op of a function of one record.

    Args:
        name: its name in ``torch.ops.opennmt_sd``.
        operands: the record.
        results: how many tensors it gives.
        function: takes and gives CPU tensors; what it gives shares no memory with what it takes.
        fake: the same, with empty results: shapes and dtypes alone.
        flops: of its matrix products.
        autograd: its gradient; default: none.

    Returns:
        The op, as a function of the record.
    """
    layout = Layout(operands)
    gives = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    _library.define(f"{name}({', '.join(layout.arguments)}) -> {gives}")
    _library.impl(name, lambda *leaves: function(layout.read(*leaves)), "CPU")
    packet = getattr(torch.ops.opennmt_sd, name)

    def formula(*leaves: Any, **_: Any) -> int:  # the result comes under a name that has changed
        return flops(layout.read(*leaves))

    flop_registry[packet] = formula
    op: Callable[..., Any] = packet.default
    flat = layout.flat
    if KNOWS_OPS:
        torch.library.register_fake(
            f"opennmt_sd::{name}", lambda *leaves: fake(layout.read(*leaves)), lib=_library
        )
    if autograd is None:
        return _alone(function, op, layout)
    setup, backward = _node(layout, autograd)
    if not KNOWS_OPS:
        members = {"forward": op, "setup_context": setup, "backward": backward}
        node = _function(name, members)
        return lambda record: node(*flat(record))
    torch.library.register_autograd(
        f"opennmt_sd::{name}", backward, setup_context=setup, lib=_library
    )

    # What torch makes of a gradient that is registered looks up the schema argument by argument,
    # and a Function with a context of its own forward's signature: 0.2 and 0.1 ms a call.
    def forward(ctx: Any, *leaves: Any) -> Any:
        if _goes_past(leaves, layout):
            output = function(layout.read(*leaves))
        else:
            with below_autograd():
                output = op(*leaves)
        setup(ctx, leaves, output)
        return output

    node = _function(name, {"forward": forward, "backward": backward})
    return lambda record: (op if is_recording() else node)(*flat(record))


def _alone(
    function: Callable[[Record], Any], op: Callable[..., Any], layout: Layout[Record]
) -> Callable[[Record], Any]:
    """Return an op without a gradient, as a function of the record."""

    def run(record: Record) -> Any:
        leaves = layout.flat(record)
        return function(record) if _goes_past(leaves, layout) else op(*leaves)

    return run


def _goes_past(leaves: Sequence[Any], layout: Layout[Any]) -> bool:
    """Return whether a call may go past the dispatcher, which takes as long as a small layer: where
    nobody watches, and no operand is for the dispatcher to take apart (a batch of gradients, a
    subclass)."""
    if not is_unwatched():
        return False
    given = [leaves[k] for k in layout.tensors if leaves[k] is not None]
    for k in layout.lists:
        given += leaves[k]
    return all(map(is_plain, given))


def _function(name: str, members: dict[str, Any]) -> Callable[..., Any]:
    """Return an autograd function of these static members."""
    statics = {member: staticmethod(function) for member, function in members.items()}
    return type(name, (torch.autograd.Function,), statics).apply  # type: ignore[attr-defined]


def _node(
    layout: Layout[Any], autograd: Autograd
) -> tuple[Callable[..., None], Callable[..., Any]]:
    """Return ``setup_context`` and ``backward`` as torch takes them."""

    others, count = layout.others, len(layout.tensors)
    names = [argument.split()[1] for argument in layout.arguments]
    kept = [None if names[k] in autograd.unneeded else k for k in layout.tensors]

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        operands = [None if k is None else inputs[k] for k in kept]
        ctx.save_for_backward(*operands, *autograd.further(ctx, output))
        ctx.others = [inputs[k] for k in others]

    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        operands = layout.restore(saved, ctx.others)
        needs = dict(zip(names, ctx.needs_input_grad))
        found = autograd.backward(ctx, operands, saved[count:], gradients, needs)
        return tuple(map(found.get, names))

    return setup, backward
