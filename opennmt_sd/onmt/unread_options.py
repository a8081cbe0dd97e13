"""Reports options that `onmt_train` knows and still does not read where they were written.

None is refused: stock trains such configurations, and so do our types.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.compat import options_of
from opennmt_sd.onmt.translation_checks import AFFIXES
from opennmt_sd.onmt.unknown_keys import CORPUS_KEYS, known_to_train

# OpenNMT-py 2 cut long lines; 3 kept the names.
NEVER = {
    f"{side}_seq_length_trunc": f"OpenNMT-py 3 cuts no lines: cut them in the text, or leave long "
    f"ones out with transforms: [filtertoolong] and {side}_seq_length"
    for side in ("src", "tgt")
}

# These take their options from a corpus, in `data`, and from nowhere else while training.
IN_CORPUS = ("clean", "normalize", *AFFIXES)

# Options of a transform that another reads as well.
BORROWED = {"src_subword_type": {"bart"}}


def unread_options(opt: Namespace) -> list[str]:
    """Return what is given and not read, one text each.

    Args:
        opt: of ``onmt_train``, its ``data`` looked through by ``validate_prepare_opts``.
    """
    readers = _readers()
    used = {name for corpus in opt.data.values() for name in corpus["transforms"]}
    texts = [f"{key} {getattr(opt, key)} does nothing: {why}" for key, why in NEVER.items()
             if getattr(opt, key, None) is not None]  # fmt: skip
    for key, (default, names) in readers.items():
        value = getattr(opt, key, default)
        if value != default and not names & used:
            texts.append(f"{key} {value} does nothing: {_no_reader(names)}")
        elif value != default and names & used <= {*IN_CORPUS}:
            reader = ", ".join(sorted(names & used))
            does = "does nothing outside data"
            if names <= {*AFFIXES}:
                does = "outside data is put to no line, though its words are in the vocabulary"
            texts.append(
                f"{key} {value} {does}: the transform {reader} reads it in a corpus: write it there"
            )
    known = known_to_train()
    for name, corpus in opt.data.items():
        texts += _of_corpus(name, corpus, known, readers)
    return texts


def _of_corpus(
    name: str, corpus: dict[str, Any], known: Collection[str], readers: dict[str, Any]
) -> Iterator[str]:
    for key in corpus:
        names = readers[key][1] if key in readers else set()
        if names & {*IN_CORPUS}:
            if not names & {*corpus["transforms"]}:
                yield f"data: {name}: {key} does nothing: {_no_reader(names, 'this corpus')}"
        elif key in known and key not in CORPUS_KEYS:
            yield f"data: {name}: {key} does nothing in a corpus: write it outside data"


def _no_reader(names: Collection[str], where: str = "any corpus") -> str:
    word = "transform" if len(names) == 1 else "transforms"
    verb = "reads" if len(names) == 1 else "read"
    readers = f"the {word} {', '.join(sorted(names))} alone {verb} it"
    return f"{readers}: add one to the transforms of {where}, or remove it"


def _readers() -> dict[str, tuple[Any, set[str]]]:
    """Return the options of transforms: each one's default, and which transforms read it."""
    parser = import_module("onmt.utils.parse").ArgumentParser
    readers: dict[str, tuple[Any, set[str]]] = {}
    for name, transform in import_module("onmt.transforms").AVAILABLE_TRANSFORMS.items():
        own = parser()
        transform.add_options(own)
        for option in options_of(own):
            if option.dest != "help":
                readers.setdefault(option.dest, (option.default, set()))[1].add(name)
    for key, names in BORROWED.items():
        readers[key][1].update(names)
    return readers
