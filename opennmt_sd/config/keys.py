"""How a schema declares its keys, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from opennmt_sd.config.rules import Rule


def key(meaning: str, default: Any = MISSING, rule: Rule | None = None) -> Any:
    """Declare a key of a schema, the field of a dataclass.

    Args:
        meaning: a few words, for ``--help``.
        default: where no YAML file has a value; without one the key must be given.
        rule: beyond the type.
    """
    metadata = {"meaning": meaning, "rule": rule}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(schema: type, meaning: str = "") -> Any:
    """Declare a section of a schema: a dataclass of keys."""
    metadata = {"meaning": meaning or (schema.__doc__ or "").partition("\n")[0], "rule": None}
    return field(default_factory=schema, metadata=metadata)


@dataclass(frozen=True)
class Key:
    """A key or a section in a schema.

    Args:
        name: dotted, from the top.
        meaning, rule: see :func:`key`.
        schema: of a section; None of a key.
    """

    name: str
    meaning: str
    rule: Rule | None
    schema: type | None


def keys(schema: Any) -> tuple[Key, ...]:
    """Return all sections and keys of a schema, a section before what is in it."""
    return _keys(schema)  # a name of its own: mypy takes a dataclass's type for unhashable


@cache
def _keys(schema: Any) -> tuple[Key, ...]:
    made = OmegaConf.structured(schema)  # takes milliseconds: once for a schema, not for each key
    found = []
    for each in fields(schema):
        of = OmegaConf.get_type(made, each.name)
        inner = of if is_dataclass(of) else None
        meaning, rule = each.metadata.get("meaning", ""), each.metadata.get("rule")
        found.append(Key(each.name, meaning, rule, inner))
        within = keys(inner) if inner else ()
        found += [replace(one, name=f"{each.name}.{one.name}") for one in within]
    return tuple(found)


def schema_of(node: Any) -> type | None:
    """Return the schema that a section of a configuration was made from, if it was."""
    made = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    return made if made is not None and is_dataclass(made) else None


def store(name: str, schema: type) -> None:
    """Put a schema into Hydra's ConfigStore.

    At its top YAML files may add keys: another project has its own beside ours there, and an
    experiment may give a name to a value that it needs twice.
    """
    node = OmegaConf.structured(schema)
    OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name=name, node=node, provider="opennmt_sd")
