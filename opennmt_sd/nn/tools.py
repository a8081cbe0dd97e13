"""How torch's tools meet our modules: tracing (``torch.fx``), TorchScript, quantization.

Each of them knows torch's own modules by their type. None may be wrong in silence with ours.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

from torch import fx

Forward = TypeVar("Forward", bound=Callable[..., Any])


def leaf(forward: Forward) -> Forward:
    """Let ``torch.fx`` take a module as one node, as it takes torch's own.

    A module that is traced by itself, and not within another, is traced through.
    """

    @functools.wraps(forward)
    def wrapped(self: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        tracer: Any = input.tracer if isinstance(input, fx.Proxy) else None
        if tracer is None or tracer.root is self:
            return forward(self, input, *args, **kwargs)
        path = tracer.path_of_module(self)
        return tracer.create_proxy("call_module", path, (input, *args), kwargs)

    return cast("Forward", wrapped)


def refuse_script(module: Any) -> NoReturn:
    """Refuse ``torch.jit.script``.

    Raises:
        NotImplementedError: always; the text says what works.
    """
    name = type(module).__name__
    if type(module).__module__.startswith(__package__):
        remedy = "turn it back into torch's own modules first, with opennmt_sd.revert(model)"
    else:
        remedy = "load its state_dict() into a model of torch's own modules, and script that"
    raise NotImplementedError(f"{name} cannot be scripted (torch.jit.script): {remedy}")


class Unquantized:
    """The attribute ``qconfig``, which ``torch.ao.quantization`` sets on whatever it comes by.

    It turns torch's own modules, known by their type, into quantized ones, and skips all others
    without a word. So ours say it.
    """

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        try:
            return module.__dict__["qconfig"]
        except KeyError:
            raise AttributeError("qconfig") from None

    def __set__(self, module: Any, value: Any) -> None:
        name = type(module).__name__
        warnings.warn(
            f"torch's quantization does not know {name} and leaves it as it is: quantize "
            "opennmt_sd.revert(model) instead, which has torch's own modules and computes the same "
            "in evaluation",
            stacklevel=2,
        )
        module.__dict__["qconfig"] = value

    def __delete__(self, module: Any) -> None:
        module.__dict__.pop("qconfig", None)
