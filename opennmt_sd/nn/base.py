"""What all our modules share: patterns as attributes, the draw, and how torch's tools meet them."""

from __future__ import annotations

from typing import Any

import torch

from opennmt_sd.dropout import DropoutPattern, Keep
from opennmt_sd.nn.tools import Unquantized, refuse_script

NOTHING = DropoutPattern(0.0)


class PatternAttribute:
    """An attribute that takes a pattern, a bare rate or None, and gives a pattern.

    So ``lstm.dropout = 0.3`` works as with ``nn.LSTM``. A bare rate keeps the space, time and
    count that are set already.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = f"_pattern_{name}"

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        return module.__dict__.get(self.key, NOTHING)

    def __set__(self, module: Any, value: DropoutPattern | float | None) -> None:
        if not isinstance(value, DropoutPattern):
            value = self.__get__(module).at(0.0 if value is None else value)
        module.__dict__[self.key] = value


class Structured:
    """Mixin for the modules.

    Attributes:
        generator: what the keep sets are drawn from; None (default) is torch's default CPU
            generator. Not copied or pickled with the module.
    """

    training: bool
    generator: torch.Generator | None = None
    qconfig = Unquantized()

    def _draw(
        self, pattern: DropoutPattern, T: int, B: int, D: int, *, dense: bool = False
    ) -> Keep | None:
        """Draw what this call keeps: None where nothing is dropped.

        Args:
            dense: as a mask, since the product behind it is dense; of the same units.
        """
        if not (self.training and pattern.active):
            return None
        draw = pattern.draw_mask if dense else pattern.draw
        return draw(T, B, D, self.generator)

    def __getstate__(self) -> dict[str, Any]:
        # nn.LSTM has one of its own; before Python 3.11 object has none.
        inherited = getattr(super(), "__getstate__", self.__dict__.copy)
        state = dict(inherited())
        state.pop("generator", None)  # generators cannot be copied on every torch
        return state

    def __prepare_scriptable__(self) -> None:
        refuse_script(self)
