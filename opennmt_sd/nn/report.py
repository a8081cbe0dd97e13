"""What `convert` has made of a model, or would make: each recurrent module, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from opennmt_sd.nn.candidates import (
    computed_weights,
    is_candidate,
    is_converted,
    never,
    own_class,
    unsupported,
)
from opennmt_sd.nn.recurrent import PLACES


@dataclass(frozen=True)
class RecurrentModule:
    """One recurrent module of a model.

    Args:
        name: in the model; empty where it is the model.
        kind: its class.
        state: ``"converted"``, ``"convertible"`` (``convert`` would), or ``"left"``.
        why: what is dropped in it, or why it is left.
    """

    name: str
    kind: str
    state: str
    why: str

    def __str__(self) -> str:
        return f"{self.name or '(the model)'}: {self.kind}: {self.state}: {self.why}"


@dataclass(frozen=True)
class ConversionReport:
    """The recurrent modules of a model; as text, a line for each."""

    modules: tuple[RecurrentModule, ...]

    @property
    def converted(self) -> list[str]:
        """The names of those that are ours."""
        return self._names("converted")

    @property
    def convertible(self) -> list[str]:
        """The names of those that ``convert`` would take."""
        return self._names("convertible")

    @property
    def left(self) -> dict[str, str]:
        """The names of those that stay as they are, and why."""
        return {found.name: found.why for found in self.modules if found.state == "left"}

    def _names(self, state: str) -> list[str]:
        return [found.name for found in self.modules if found.state == state]

    def __str__(self) -> str:
        return "\n".join(map(str, self.modules)) or "no recurrent modules"


def conversion_report(model: nn.Module) -> ConversionReport:
    """Tell what :func:`convert` has made of a model, or would make of it; nothing is changed.

    Example::

        convert(model, only="encoder")
        print(conversion_report(model))
    """
    return ConversionReport(tuple(_found(model)))


def _found(model: nn.Module) -> Iterator[RecurrentModule]:
    for name, module in model.named_modules():
        if is_converted(module):
            yield RecurrentModule(name, _kind(module), "converted", _dropped(module))
        elif is_candidate(module):
            why = unsupported(module)
            texts = [why] if why else ["convert would take it", *_computed(module)]
            state = "left" if why else "convertible"
            yield RecurrentModule(name, _kind(module), state, "; ".join(texts))
        elif why := never(module):
            yield RecurrentModule(name, _kind(module), "left", why)


def _kind(module: nn.Module) -> str:
    """Return the name of a module's class, ``nn.LSTM`` of torch's."""
    cls = own_class(module)
    name = getattr(module, "original_name", cls.__name__)  # of TorchScript
    return f"nn.{name}" if cls.__module__.startswith("torch.nn") else str(name)


def _dropped(module: nn.Module) -> str:
    """Say what is dropped in a module of ours, and what is not though it may look so."""
    patterns = {place: getattr(module, place) for place in PLACES if hasattr(module, place)}
    active = {place: p for place, p in patterns.items() if p.active}
    texts = [f"{place} {p.p} {p.space}/{p.time}" for place, p in active.items()]
    if "dropout" in active and getattr(module, "num_layers", 0) == 1:
        texts.append("dropout is between layers, and there is one: it drops nothing")
    elif not active:
        packed = "" if getattr(module, "exact", True) else ", and packed on the CPU's kernels"
        texts.append(f"nothing is dropped: it runs as torch's own{packed}")
    return "; ".join([*texts, *_computed(module)])


def _computed(module: nn.Module) -> list[str]:
    names = computed_weights(module)
    return [f"computed before each call, by what is around it: {', '.join(names)}"] if names else []
