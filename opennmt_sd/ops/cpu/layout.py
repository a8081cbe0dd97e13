"""How a record of operands lies in the flat list of arguments that an op of torch has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

from torch import Tensor

# int: symbolic, so that a compiled model needs no new graph for a new number of steps.
TYPES = {
    Tensor: "Tensor", Tensor | None: "Tensor?", float: "float", int: "SymInt", bool: "bool",
    list[Tensor]: "Tensor[]", list[bool]: "bool[]",
}  # fmt: skip

Record = TypeVar("Record", bound=tuple[Any, ...])


class Layout(Generic[Record]):
    """How a record lies in the flat list of an op's arguments.

    Both ways are compiled once, as one expression: a loop over the fields would cost a small layer
    a tenth of its time.

    Attributes:
        arguments: of the schema, such as ``Tensor? x_idx``.
        flat: ``flat(record)`` gives the leaves.
        read: ``read(*leaves)`` gives the record.
        tensors, others: which leaves are tensors, or None for one, and which are not.
        lists: which of the others are lists of tensors.
        restore: ``restore(saved, others)`` gives it from what ``save`` has kept apart.
    """

    def __init__(self, record: type[Record]) -> None:
        leaves = list(_leaves(record))
        self.arguments = [f"{kind} {'_'.join(path)}" for kind, path, _ in leaves]
        fields = ", ".join(f"r{index}" for _, _, index in leaves)
        self.flat: Callable[[Record], tuple[Any, ...]] = _compiled(f"lambda r: ({fields},)", {})
        names = [f"a{k}" for k in range(len(leaves))]
        self.read = _constructor(record, names, ", ".join(names))
        self.tensors = [k for k, (kind, _, _) in enumerate(leaves) if kind in ("Tensor", "Tensor?")]
        self.lists = [k for k, (kind, _, _) in enumerate(leaves) if kind == "Tensor[]"]
        self.others = [k for k in range(len(leaves)) if k not in self.tensors]
        for place, group in (("saved", self.tensors), ("others", self.others)):
            for n, k in enumerate(group):
                names[k] = f"{place}[{n}]"
        self.restore = _constructor(record, names, "saved, others")


def _leaves(record: type, path: tuple[str, ...] = (), index: str = "") -> Iterator[Any]:
    """Yield each leaf's type in a schema, its names from the outside in, and its index."""
    for k, (name, hint) in enumerate(get_type_hints(record).items()):
        own, at = (*path, name), f"{index}[{k}]"
        if hint in TYPES:
            yield TYPES[hint], own, at
        else:
            yield from _leaves(hint, own, at)


def _constructor(
    record: type[Record], leaves: Sequence[str], arguments: str
) -> Callable[..., Record]:
    """Return a function of these arguments that makes a record of these leaves."""
    classes: dict[str, Any] = {}
    source = _construction(record, iter(leaves), classes)
    return _compiled(f"lambda {arguments}: {source}", classes)


def _construction(record: type, leaves: Iterator[str], classes: dict[str, Any]) -> str:
    name = f"Record{len(classes)}"
    classes[name] = record
    parts = [
        next(leaves) if hint in TYPES else _construction(hint, leaves, classes)
        for hint in get_type_hints(record).values()
    ]
    return f"{name}({', '.join(parts)})"


def _compiled(source: str, names: dict[str, Any]) -> Callable[..., Any]:
    return eval(source, names)
