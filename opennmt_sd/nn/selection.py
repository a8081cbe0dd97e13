"""Modules of a model by their names: which of them are meant, and which rate each one gets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from opennmt_sd.dropout import DropoutPattern

CONVERTED = "it is converted already: set the attribute of that name instead"
Rate = DropoutPattern | float
Only = str | Iterable[str] | type[nn.Module] | Callable[[str, nn.Module], bool]


class Names:
    """The names of modules in a model, in the order they are found; a module may have several.

    Args:
        of: the names of each module that may be chosen.
        others: why one of another name may not be.
    """

    def __init__(self, of: Mapping[nn.Module, list[str]], others: Mapping[str, str]) -> None:
        self.of, self.others = of, others

    def among(self, modules: Iterable[nn.Module], why: str) -> Names:
        """Return the names of these modules alone; of the others the reason is given."""
        kept = {module: self.of[module] for module in modules}
        left = {name: why for m, names in self.of.items() if m not in kept for name in names}
        return Names(kept, {**self.others, **left})

    def chosen(self, only: Only | None) -> list[nn.Module]:
        """Return the modules that a filter lets through, in order.

        Args:
            only: a name or names, a class, or a function of a name and a module; None: all.

        Raises:
            ValueError: a name is of none of them, nor of one that is converted already.
            TypeError: a name is no string.
        """
        if only is None:
            return [*self.of]
        if isinstance(only, type):
            return [m for m in self.of if isinstance(m, only)]
        if callable(only):
            return [m for m, names in self.of.items() if any(only(name, m) for name in names)]
        wanted = [only] if isinstance(only, str) else [*only]
        for name in wanted:
            self._check(name, "only", fine=CONVERTED)
        return [m for m, names in self.of.items() if any(_means(name, names) for name in wanted)]

    def rates(
        self, place: str, given: Mapping[str, Rate | None] | Rate | None
    ) -> dict[nn.Module, DropoutPattern]:
        """Return the pattern of each module that is given one in a place.

        Args:
            given: one for all, or one for each name; the longest name that means a module counts.

        Raises:
            ValueError: a name is of none of them; a rate outside [0, 1).
        """
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.of, DropoutPattern.of(given))
        for name in given:
            self._check(name, place)
        rates = {m: given[name] for m, name in self.meant(given).items()}
        return {m: DropoutPattern.of(p) for m, p in rates.items() if p is not None}

    def meant(self, given: Iterable[str]) -> dict[nn.Module, str]:
        """Return the name that counts for each module: the longest of those that mean it."""
        found: dict[nn.Module, str] = {}
        for name in sorted(given, key=len):
            found |= {m: name for m, names in self.of.items() if _means(name, names)}
        return found

    def _check(self, name: object, where: str, fine: str | None = None) -> None:
        """Refuse a name that means none of the modules, unless for a reason that is fine."""
        if not isinstance(name, str):
            raise TypeError(f"{where} takes the names of modules, got {name!r}")
        reason = self._reason(name)
        if any(_means(name, names) for names in self.of.values()) or (reason and reason == fine):
            return
        known = [own for names in self.of.values() for own in names if own]
        near = difflib.get_close_matches(name, known, 1, cutoff=0)
        nearest = f"did you mean {near[0]!r}?" if near else "there is none that has a name"
        raise ValueError(f"{where}: {name!r} names no module to convert: {reason or nearest}")

    def _reason(self, name: str) -> str | None:
        """Return why what a name means is not to be chosen."""
        return next((why for other, why in self.others.items() if _means(name, [other])), None)


def _means(name: str, names: Iterable[str]) -> bool:
    """Return whether a name means a module of these: its own, that of one around it, a pattern."""
    return any(own == name or own.startswith(f"{name}.") or fnmatchcase(own, name) for own in names)
