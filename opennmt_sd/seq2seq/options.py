"""The plugins' options, of the same names in every toolkit, and what can be wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from opennmt_sd.dropout import COUNTS, SPACES, TIMES, check_rate
from opennmt_sd.seq2seq.dropout_plan import OUTPUTS, PLACES, option

# Plain str and float (and None): a checkpoint that holds them loads with weights_only.
DEFAULTS: dict[str, Any] = {
    "sd_space": "structured",
    "sd_time": "random",
    "sd_count": None,  # that of the space
    "sd_output_sets": "staggered",
    **{option(name): None if place.follows else 0.0 for name, place in PLACES.items()},
    "sd_matmul_precision": None,
}
CHOICES = {
    "sd_space": SPACES, "sd_time": TIMES, "sd_count": COUNTS, "sd_output_sets": OUTPUTS,
}  # fmt: skip
PRECISIONS = ("highest", "high", "medium")  # of torch.set_float32_matmul_precision


def looks_like_ours(key: str) -> bool:
    """Return whether a key has the prefix of the plugins' options, however it is written."""
    return key.lower().replace("-", "_").startswith("sd_")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known name that is most like a word, both with the prefix."""

    def likeness(name: str) -> tuple[bool, float]:
        # Without what the names share; the beginning of a name counts most.
        mine, its = (text.lower()[3:].removesuffix("_dropout") for text in (word, name))
        return its.startswith(mine), difflib.SequenceMatcher(None, mine, its).ratio()

    return max(known, key=likeness)


def unknown_key_faults(keys: Iterable[str]) -> list[str]:
    """Say of keys that look like ours and are none what may have been meant, one text each."""
    return [
        f"{key} is no option: did you mean {nearest(key, DEFAULTS)}?"
        for key in dict.fromkeys(keys)
        if key not in DEFAULTS
    ]


def value_faults(options: Mapping[str, Any], schedule: Iterable[Any] = ()) -> list[str]:
    """Return what is wrong with the values of options, one text each.

    Args:
        options: by their names; one that is not there has its default.
        schedule: the rates of ``dropout``, where ours follow it.
    """
    faults = []
    for key, choices in CHOICES.items():
        value = options.get(key, DEFAULTS[key])
        if value not in choices and value is not DEFAULTS[key]:
            faults.append(f"{key} {value!r} is unknown: use {' or '.join(choices)}")
    precision = options.get("sd_matmul_precision")
    if precision not in (None, *PRECISIONS):
        faults.append(
            f"sd_matmul_precision {precision!r} is unknown: use highest, high or medium, or remove "
            "it"
        )
    if (options.get("sd_count"), options.get("sd_space")) == ("exact", "random"):
        faults.append(
            "sd_count exact needs sd_space structured: sentences that each drop their own units "
            "have no set of one size to share; set sd_count bernoulli, or sd_space structured"
        )
    rates = [(option(place), options.get(option(place))) for place in PLACES]
    for key, value in [*rates, *(("dropout", p) for p in schedule)]:
        try:
            check_rate(0.0 if value is None else value, key)
        except (TypeError, ValueError) as error:
            faults.append(str(error))
    return faults
