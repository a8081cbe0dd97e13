"""Keys that `onmt_train` does not know and drops in silence: each is reported with today's name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.compat import options_of
from opennmt_sd.onmt.old_names import GONE, TODAY
from opennmt_sd.seq2seq.options import DEFAULTS, looks_like_ours

TYPO = 0.75  # as like as that, a key is a known one misspelt

OFF = ("false", "no", "off")  # as a YAML file's values arrive, in any case

# Of a corpus in `data`; some transforms look up options of their own there: `unread_options`.
CORPUS_KEYS = ("path_src", "path_tgt", "path_txt", "path_align", "transforms", "weight",
               "src_prefix", "tgt_prefix", "src_suffix", "tgt_suffix")  # fmt: skip
CORPUS_TODAY = {"src_feats": TODAY["src_feats"], "n_src_feats": "n_src_feats, outside of data"}


def given(unknown: Iterable[str]) -> dict[str, str]:
    """Return the keys among what a parser left over, ``--key=value`` or ``-key``, ``value``; the
    value where it is written in one word."""
    words = (word.lstrip("-").partition("=") for word in unknown if word.startswith("-"))
    return {key: value for key, _, value in words if key[:1].isalpha() or key[:1] == "_"}


@dataclass(frozen=True)
class DroppedKey:
    """A key that ``onmt_train`` drops in silence.

    Args:
        name: as it was written.
        remedy: what to write instead.
        matters: whether another training than the one asked for would run.
    """

    name: str
    remedy: str
    matters: bool

    def __str__(self) -> str:
        return (
            f"{self.name} is no option of onmt_train, which would drop it in silence: {self.remedy}"
        )


def dropped_keys(unknown: list[str]) -> list[DroppedKey]:
    """Return the keys that ``onmt_train`` would drop, each with what it is called today.

    Args:
        unknown: what ``parse_known_args`` left over; a YAML file's keys are among them. Those that
            look like options of ours are another matter: :func:`unknown_faults`.
    """
    keys = {key: value for key, value in given(unknown).items() if not looks_like_ours(key)}
    known, elsewhere = (known_to_train(), _of_other_commands()) if keys else ([], {})
    found = (_dropped(key, value, known, elsewhere) for key, value in keys.items())
    return [key for key in found if key is not None]


def corpus_faults(corpora: dict[str, Any]) -> list[str]:
    """Say the same of the keys of the corpora in ``data``."""
    faults = []
    known = known_to_train()
    for corpus, entries in corpora.items():
        for key in entries if isinstance(entries, dict) else ():
            if key in CORPUS_KEYS or key in known:
                continue
            today = CORPUS_TODAY.get(key) or _nearest(str(key), CORPUS_KEYS)
            faults.append(
                f"data: {corpus}: {key} is no key of a corpus and would be dropped in silence: "
                f"did you mean {today}?"
            )
    return faults


def known_to_train() -> list[str]:
    """Return the names of all options of ``onmt_train``."""
    return _options_of(import_module("onmt.opts").train_opts)


def _dropped(
    key: str, value: str, known: Collection[str], elsewhere: dict[str, str]
) -> DroppedKey | None:
    name = key.lower().replace("-", "_")
    if elsewhere.get(name) == "onmt_build_vocab":
        return None  # one file may serve both
    if value.lower() in OFF:  # `fp16: false` asks for nothing
        return DroppedKey(key, "it is off: remove it", matters=False)
    if name == "sd":
        options = " or ".join([*DEFAULTS][:3])
        return DroppedKey(key, f"write our options flat, such as {options}", matters=True)
    if f"sd_{name}" in DEFAULTS:
        return DroppedKey(key, f"did you mean sd_{name}?", matters=True)
    if (today := TODAY.get(name)) and name in elsewhere:
        remedy = f"it belongs to {elsewhere[name]}; in training it is {today}"
        return DroppedKey(key, remedy, matters=False)
    if today:
        return DroppedKey(key, f"today it is {today}", matters=True)
    if name in GONE:
        remedy = f"{GONE[name]}; remove it" if GONE[name] else "remove it"
        return DroppedKey(key, f"OpenNMT-py 3 does without it: {remedy}", bool(GONE[name]))
    if name in elsewhere:
        return DroppedKey(key, f"it belongs to {elsewhere[name]}: remove it here", matters=False)
    nearest = _nearest(name, known)
    return DroppedKey(key, f"did you mean {nearest}?", matters=_likeness(name, nearest) > TYPO)


def _of_other_commands() -> dict[str, str]:
    """Return the options that other commands alone have, and which: a file may serve several."""
    opts = import_module("onmt.opts")
    found: dict[str, str] = {}
    for command, add in (
        ("onmt_translate", opts.translate_opts),
        ("onmt_build_vocab", lambda parser: opts.data_prepare_opts(parser, build_vocab_only=True)),
    ):
        found.update(dict.fromkeys(_options_of(add), command))
    return found


def _options_of(add: Callable[[Any], None]) -> list[str]:
    parser = import_module("onmt.utils.parse").ArgumentParser()
    add(parser)
    return [option.dest for option in options_of(parser)]


def _nearest(word: str, names: Collection[str]) -> str:
    return max(sorted(names), key=lambda name: _likeness(word, name))


def _likeness(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word, name).ratio()
