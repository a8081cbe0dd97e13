"""What all our modules share: patterns as attributes, a generator, and no TorchScript."""

from __future__ import annotations

from typing import Any

import torch

from opennmt_sd.dropout import DropoutPattern

NOTHING = DropoutPattern(0.0)


class PatternAttribute:
    """An attribute that takes a pattern, a bare rate or None, and gives a pattern.

    So ``lstm.dropout = 0.3`` works as with ``nn.LSTM``. A bare rate keeps the space and time that
    are set already.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        return module.__dict__.get(f"_pattern_{self.name}", NOTHING)

    def __set__(self, module: Any, value: DropoutPattern | float | None) -> None:
        if not isinstance(value, DropoutPattern):
            before = self.__get__(module)
            rate = 0.0 if value is None else value
            value = DropoutPattern(rate, before.space, before.time)
        module.__dict__[f"_pattern_{self.name}"] = value


class Structured:
    """Mixin for the modules.

    Attributes:
        generator: what the keep sets are drawn from; None (default) is torch's default CPU
            generator. Not copied or pickled with the module.
    """

    generator: torch.Generator | None = None

    def __getstate__(self) -> dict[str, Any]:
        # nn.LSTM has one of its own; before Python 3.11 object has none.
        inherited = getattr(super(), "__getstate__", self.__dict__.copy)
        state = dict(inherited())
        state.pop("generator", None)  # generators cannot be copied on every torch
        return state

    def __prepare_scriptable__(self) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} cannot be scripted (torch.jit.script): turn it back into "
            "torch's own modules first, with opennmt_sd.revert(model)"
        )
