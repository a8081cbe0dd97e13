"""What Hydra refuses on a command line, in our words: the key, the value, the rule, the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

import opennmt_sd.conf
from opennmt_sd.config.keys import keys, schema_of
from opennmt_sd.config.lm import LMConfig
from opennmt_sd.config.shared import RunConfig
from opennmt_sd.config.tagger import TaggerRunConfig

# task: its command, what it is called, its keys
TASKS: dict[str, tuple[str, str, type[RunConfig]]] = {
    "lm": ("opennmt_sd_train_lm", "the language model", LMConfig),
    "tagger": ("opennmt_sd_train_tagger", "the tagger", TaggerRunConfig),
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
            return unknown_key(given, task)
        if isinstance(cause, ValidationError):
            kind = re.search(r"(?:could not be converted to|is not a valid) (\w+)", str(cause))
            rule = KINDS.get(kind[1].capitalize(), kind[1]) if kind else ""
            what = f"must be {rule}" if rule else str(cause).splitlines()[0]
            return f"{given or cause.full_key}: {what}"
    if isinstance(error, OmegaConfBaseException):  # while a value is read
        return f"{error.full_key or error.key}: {str(error).splitlines()[0]}"
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"{text}: {str(cause).splitlines()[0]}" if cause and str(cause) else text


def unknown_key(given: str, task: str) -> str:
    """Say that there is no such key, and which is meant.

    Args:
        given: ``key.within=value``.
        task: whose command it is; a key of the other one is reported as such.
    """
    key = given.partition("=")[0].lstrip("+~")
    for other, (command, what, theirs) in TASKS.items():
        if other != task and key in {each.name for each in keys(theirs)}:
            return f"{given}: is a key of {what}: {command} {given}"
    return f"{given}: {_no_such(key, [each.name for each in keys(TASKS[task][2])])}"


def _no_such(key: str, names: list[str]) -> str:
    """Name what is meant: a key misspelt, or one that stands in another section."""
    section = ""  # the deepest one that is right, with its dot
    for part in key.split(".")[:-1]:
        if not any(name.startswith(f"{section}{part}.") for name in names):
            break
        section += f"{part}."
    beside = [name.removeprefix(section) for name in names if name.startswith(section)]
    whole = [name for name in beside if "." not in name]
    wrong, *rest = key.removeprefix(section).split(".")
    near = get_close_matches(wrong, whole, n=1)
    last = key.rpartition(".")[2]
    meant = [".".join([section + name, *rest]) for name in near]
    meant += [name for name in names if name.rpartition(".")[2] == last]
    ask = f"did you mean {meant[0]}? There are" if meant else "use one of"
    return f"there is no such key; {ask} {', '.join(whole)}"


def _given(text: str) -> str | None:
    """Find the override that Hydra's text quotes."""
    found = re.search(r"To append to your config use \+(.*)|Error merging override (.*)", text)
    return (found[1] or found[2]) if found else None


def _missing(name: str, options: Iterable[str], task: str) -> str:
    """Say why a group has no such file: of the other task, misspelt, of a missing package."""
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
    names = [each.name for each in keys(schema_of(cfg))]
    known = set(names)
    added = {word.lstrip("+").partition("=")[0] for word in run.overrides.task if word[:1] == "+"}
    ours = any(
        source.provider == "main" and source.path.startswith("opennmt_sd.conf")
        for source in run.runtime.config_sources
    )
    faults = []

    def look(node: Any, prefix: str) -> None:
        if schema_of(node) is None:
            return
        for key in map(str, node):
            full = f"{prefix}{key}"
            if full in known:
                look(node._get_node(key), f"{full}.")
            elif prefix or (ours and full not in added):
                faults.append(f"{full}: {_no_such(full, names)}")

    look(cfg, "")
    return faults
