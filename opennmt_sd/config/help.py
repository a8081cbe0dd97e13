"""The keys of a configuration as ``--help`` shows them: value, meaning, what is allowed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from opennmt_sd.config.keys import schema_of
from opennmt_sd.config.rules import Rule

COLUMN = 44  # where meanings begin


def register() -> None:
    """Let ``${opennmt_sd.keys:}`` in a help template stand for :func:`described`."""
    OmegaConf.register_new_resolver(
        "opennmt_sd.keys",
        lambda *, _root_: described(_root_).replace("$", "$$"),  # Hydra's template takes one
        replace=True,
    )


def described(cfg: DictConfig) -> str:
    """Return YAML of all that a schema declares, with comments."""
    return "\n".join(_lines(cfg, ""))


def _lines(node: DictConfig, indent: str) -> list[str]:
    schema: Any = schema_of(node)
    lines = []
    for each in fields(schema):
        inner = node._get_node(each.name)
        meaning, rule = each.metadata.get("meaning", ""), each.metadata.get("rule")
        nested = schema_of(inner)
        if nested is not None and not getattr(nested, "INLINE", False):
            lines += [_line(f"{indent}{each.name}:", meaning, rule)]
            lines += _lines(inner, f"{indent}  ")  # type: ignore[arg-type]
            continue
        value = OmegaConf.to_container(OmegaConf.create({each.name: inner}))[each.name]  # type: ignore[call-overload,index]
        lines.append(_line(f"{indent}{each.name}: {_shown(value)}", meaning, rule))
    return lines


def _shown(value: Any) -> str:
    """Write a value as YAML has it, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "''" if value == "" else str(value)


def _line(text: str, meaning: str, rule: Rule | None) -> str:
    comment = "; ".join(part for part in (meaning, rule.brief if rule else "") if part)
    return f"{text:<{COLUMN}} # {comment}" if comment else text
