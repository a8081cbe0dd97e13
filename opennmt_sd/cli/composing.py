"""What Hydra refuses on a command line, in our words: the key, the value, the rule, the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

import opennmt_sd.conf
from opennmt_sd.cli import schema, schema_tagger

# task: its command, what it is called, its keys
TASKS: dict[str, tuple[str, str, type[schema.RunConfig]]] = {
    "lm": ("opennmt_sd_train_lm", "the language model", schema.LMConfig),
    "tagger": ("opennmt_sd_train_tagger", "the tagger", schema_tagger.TaggerRunConfig),
}
KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "Bool": "true or false",
}
PACKAGES = {
    "hydra/launcher/joblib": "'opennmt_sd[sweep]'",
    "hydra/sweeper/optuna": "'opennmt_sd[sweep]'",
    "hydra/launcher/ray": "hydra-ray-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
}


def fault(error: Exception, task: str) -> str:
    """Say in one line what is wrong with a command line or a YAML file.

    Args:
        error: of Hydra or OmegaConf.
        task: ``"lm"`` or ``"tagger"``: whose command it is.
    """
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, error.options or (), task)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return (
            f"{error.override}: cannot be read ({error.message.splitlines()[0]}); quote a value "
            f"""with special characters: '{key}="{value}"'"""
        )
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        given = _given(str(error))
        if isinstance(cause, ConfigKeyError | AttributeError) and given:
            return unknown_key(given, TASKS[task][2], task)
        if isinstance(cause, ValidationError):
            kind = re.search(r"(?:could not be converted to|is not a valid) (\w+)", str(cause))
            rule = KINDS.get(kind[1].capitalize(), kind[1]) if kind else ""
            what = f"must be {rule}" if rule else str(cause).splitlines()[0]
            return f"{given or cause.full_key}: {what}"
    if isinstance(error, OmegaConfBaseException):  # while a value is read
        return f"{error.full_key or error.key}: {str(error).splitlines()[0]}"
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"{text}: {str(cause).splitlines()[0]}" if cause and str(cause) else text


def unknown_key(given: str, known: Any, task: str | None = None) -> str:
    """Say that there is no such key, and which is meant.

    Args:
        given: ``key.within=value``, or the dotted key alone.
        known: the schema that it is looked for in.
        task: whose command it is; a key of the other one is told.
    """
    key = given.partition("=")[0].lstrip("+~")
    for other, (command, what, theirs) in TASKS.items():
        if task and other != task and key in names(theirs):
            return f"{given}: is a key of {what}: {command} {given}"
    meant = _meant(key, known)
    beside = ", ".join(_section(key, known)[1])
    ask = f"did you mean {meant}? There are {beside}" if meant else f"use one of {beside}"
    return f"{given}: there is no such key; {ask}"


def _meant(key: str, known: Any) -> str | None:
    """The key that is misspelt here, or that stands in another section."""
    section, there = _section(key, known)
    wrong, *rest = key.removeprefix(section).split(".")
    if near := get_close_matches(wrong, there, n=1):
        return ".".join([section + near[0], *rest])
    elsewhere = [name for name in names(known) if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return elsewhere[0] if elsewhere else None


def _section(key: str, known: Any) -> tuple[str, list[str]]:
    """The deepest section that is right, with its dot, and the names in it."""
    section = ""
    for part in key.split(".")[:-1]:
        if not is_dataclass(_nodes(known).get(part)):
            break
        known, section = _nodes(known)[part], f"{section}{part}."
    return section, list(_nodes(known))


def names(known: Any, prefix: str = "") -> list[str]:
    """Give the dotted names of a schema: of its sections and of its keys."""
    found = []
    for field, node in _nodes(known).items():
        found.append(f"{prefix}{field}")
        found += names(node, f"{prefix}{field}.")
    return found


def _nodes(known: Any) -> dict[str, Any]:
    if not is_dataclass(known):
        return {}
    made = OmegaConf.structured(known)
    return {field.name: OmegaConf.get_type(made, field.name) for field in fields(known)}


def _given(text: str) -> str | None:
    """The override that Hydra's text quotes."""
    found = re.search(r"To append to your config use \+(.*)|Error merging override (.*)", text)
    return (found[1] or found[2]) if found else None


def _missing(name: str, options: Iterable[str], task: str) -> str:
    """A group has no such file: it is of the other task, misspelt, or of a missing package."""
    group, _, option = name.rpartition("/")
    given = f"{group}={option}" if group else option
    if name in PACKAGES:
        return f"{given}: its package is missing: pip install {PACKAGES[name]}"
    for other, (command, what, _) in TASKS.items():
        if other != task and _file(other, name).is_file():
            return f"{given}: is of {what}: {command} {given}. Here there are {', '.join(options)}"
    if not options:
        return f"{given}: there is no such file"
    near = get_close_matches(option, list(options), n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{given}: there is none of this name; {meant}There are {', '.join(options)}"


def _file(task: str, name: str) -> Path:
    return Path(opennmt_sd.conf.__path__[0], task, f"{name}.yaml")


def unknown_keys(cfg: DictConfig, run: Any) -> list[str]:
    """Find keys that ``+`` or a YAML file has added where nobody reads them, a line each.

    At the top what ``+`` adds may be of use, and all of it in another project's configuration.

    Args:
        run: Hydra's own node.
    """
    added = {word.lstrip("+").partition("=")[0] for word in run.overrides.task if word[:1] == "+"}
    ours = any(
        source.provider == "main" and source.path.startswith("opennmt_sd.conf")
        for source in run.runtime.config_sources
    )
    faults = []

    def look(node: Any, prefix: str) -> None:
        known: Any = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
        if not is_dataclass(known):
            return
        there = [field.name for field in fields(known)]
        for key in map(str, node):
            full = f"{prefix}{key}"
            if key in there:
                look(node._get_node(key), f"{full}.")
            elif prefix or (ours and full not in added):
                near = get_close_matches(key, there, n=1)
                meant = f"did you mean {prefix}{near[0]}? There are" if near else "use one of"
                faults.append(f"{full}: there is no such key; {meant} {', '.join(there)}")

    look(cfg, "")
    return faults
