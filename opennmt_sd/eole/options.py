"""The plugin's options in Eole's configuration: written under ``model``, kept where Eole keeps what
it does not know.

Every part of Eole's configuration forbids keys that it does not declare, but one:
``scorer_configs`` is a free dictionary, a part for each name. There the options go as a
configuration is read, so they are saved, resumed and overridden by Eole's own ways, and an Eole
without this plugin reads such a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opennmt_sd.seq2seq.dropout_plan import BEFORE, settled_count
from opennmt_sd.seq2seq.options import DEFAULTS, looks_like_ours, unknown_key_faults

HOME, NAME, CHOICES = "scorer_configs", "opennmt_sd", "opennmt_sd_calibration"
STOCK_TYPES = {"sd_rnn": "rnn", "sd_brnn": "brnn"}  # the OpenNMT-py plugin's names


def move_options(data: dict[str, Any]) -> list[str]:
    """Take the options out of a configuration's ``model``, and put them where they are kept.

    Args:
        data: of a whole configuration; what is in it is not changed, but it gets other parts.

    Returns:
        What is wrong with where they stand and how they are written, one text each.
    """
    faults = [*_misplaced(data)]
    model = data.get("model")
    if not isinstance(model, Mapping):
        return faults
    ours = {key: value for key, value in model.items() if looks_like_ours(key)}
    faults += unknown_key_faults(ours)
    faults += _types_of_old(model)
    if ours:
        faults += _lost_type(model)
        data["model"] = {key: value for key, value in model.items() if key not in ours}
        kept = dict(data.get(HOME) or {})
        data[HOME] = {**kept, NAME: {**kept.get(NAME, {}), **ours}}
    return faults


def options_of(config: Any) -> dict[str, Any] | None:
    """Return the options that a configuration holds, by their names; None where it holds none."""
    found = _kept(config, NAME)
    return None if found is None else dict(found)


def complete_options(
    config: Any, before: Mapping[str, Any] | None, asked: Mapping[str, Any]
) -> None:
    """Let a configuration that holds options say what those mean that came later: in a model that
    goes on, from before there were such, what they meant then; in another, what they mean today.
    And where a run asks for another space and no count, the count is that of the new one.

    Args:
        before: the options of the checkpoint that goes on; None where it has none.
        asked: the options of this run, before the checkpoint's were added.
    """
    held = _kept(config, NAME)
    if held is None:
        return
    then = DEFAULTS if before is None else {**DEFAULTS, **BEFORE, **before}
    if held.get("sd_space", then["sd_space"]) != then["sd_space"] and "sd_count" not in asked:
        held["sd_count"] = None
    for key in BEFORE:
        held.setdefault(key, then[key])
    held["sd_count"] = settled_count(held["sd_count"], held.get("sd_space", DEFAULTS["sd_space"]))


def choices_of(config: Any) -> dict[str, bool] | None:
    """Return what was chosen by measurement; None where a configuration holds none."""
    return _kept(config, CHOICES)


def keep_choices(config: Any, choices: dict[str, bool]) -> None:
    """Let a configuration that holds options hold these choices, and no others."""
    held = getattr(config, HOME)  # set anew it would be validated, with all the rest
    held.pop(CHOICES, None)
    if choices:
        held[CHOICES] = choices


def _kept(config: Any, name: str) -> Any:
    """Return what a configuration keeps of ours under a name; None where it keeps nothing."""
    return (getattr(config, HOME, None) or {}).get(name)


def _misplaced(part: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Find options anywhere but directly under ``model``: Eole would say they are forbidden."""
    for key, value in part.items():
        if looks_like_ours(str(key)) and path != "model":
            where = f"under {path}" if path else "at the top"
            yield f"{key} stands {where}: move it directly under model"
        elif isinstance(value, Mapping) and key not in ("data", HOME):
            yield from _misplaced(value, f"{path}.{key}" if path else str(key))


def _types_of_old(model: Mapping[str, Any]) -> Iterator[str]:
    """Find the types of the OpenNMT-py plugin: Eole's are its own."""
    for side in ("encoder", "decoder"):
        part = model.get(side)
        name = part.get(f"{side}_type") if isinstance(part, Mapping) else None
        if name in STOCK_TYPES:
            yield (
                f"{side}_type {name} is OpenNMT-py's: in Eole set {side}_type: "
                f"{STOCK_TYPES[name]}, and sd_space: {DEFAULTS['sd_space']} under model"
            )


def _lost_type(model: Mapping[str, Any]) -> Iterator[str]:
    """Find an encoder's type that Eole's ``architecture: rnn`` would replace in silence."""
    encoder = model.get("encoder")
    name = encoder.get("encoder_type") if isinstance(encoder, Mapping) else None
    if model.get("architecture") == "rnn" and name not in (None, "rnn"):
        yield (
            f"encoder_type {name} would become rnn with architecture rnn, which sets it: remove "
            "architecture, and set decoder: {decoder_type: rnn}"
        )
