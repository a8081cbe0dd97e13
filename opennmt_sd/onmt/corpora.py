"""What a training reads: a corpus without a usable pair, or with a line that cannot be read.

Stock loads a corpus from which every pair is filtered again and again, for ever, and ends at a line
that is not UTF-8 in a traceback without the line.
"""

from __future__ import annotations

import functools
import inspect
import random
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any

import torch

from opennmt_sd.onmt.vocabulary_file import read_vocabulary
from opennmt_sd.seq2seq.wrapping import wrap

FEATURE = "\uffe8"  # stands between a word and its features
CHUNK = 64  # pairs that are looked at together


class CorpusError(ValueError):
    """A text that cannot be trained on; the message names it and says what to do."""


def register_corpora() -> None:
    """Wrap what reads corpora and vocabularies."""
    wrap(import_module("onmt.inputters.text_corpus").ParallelCorpus, "load", _with_named_lines)
    wrap(import_module("onmt.inputters.inputter"), "_read_vocab_file", _in_our_way)
    iterators = import_module("onmt.inputters.dynamic_iterator")
    wrap(iterators, "build_dynamic_dataset_iter", _with_usable_pairs)


def _in_our_way(read: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_read_vocab_file`: whatever the words hold."""
    return functools.wraps(read)(read_vocabulary)


def _with_usable_pairs(build: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `build_dynamic_dataset_iter`, of training and validation: there is data to use."""

    @functools.wraps(build)
    def wrapped(opt: Namespace, transforms_cls: Any, vocabs: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(build).bind(opt, transforms_cls, vocabs, *args, **kwargs)
        given.apply_defaults()
        task, part = given.arguments["task"], (given.arguments["stride"], given.arguments["offset"])
        if task != "infer" and given.arguments["src"] is None:
            check_corpora(opt, transforms_cls, vocabs, task, *part)
        return build(opt, transforms_cls, vocabs, *args, **kwargs)

    return wrapped


def check_corpora(
    opt: Namespace, transforms_cls: Any, vocabs: Any, task: str, stride: int, offset: int
) -> None:
    """Look for a usable pair in each corpus; each is read up to its first one.

    Random numbers are drawn as if this had not happened.

    Args:
        opt, transforms_cls, vocabs, task: as stock gives them to its data sets.
        stride, offset: the number of ranks, and which one this is.

    Raises:
        CorpusError: there is none in the training corpora, in what one worker would read of them,
            or in the validation corpus.
    """
    corpus_module = import_module("onmt.inputters.text_corpus")
    with _random_state_kept():
        transforms = import_module("onmt.transforms").make_transforms(opt, transforms_cls, vocabs)
        corpora = corpus_module.get_corpora(opt, task)
        workers = max(opt.num_workers, 1)
        found: dict[str, list[bool | None]] = {}
        for name, corpus in (corpora or {}).items():
            if task == "train" and int(opt.data[name]["weight"]) < 1:
                continue  # it is left out
            for worker in range(workers):
                pairs = corpus_module.build_corpora_iters(
                    {name: corpus}, transforms, opt.data, "silent", stride * workers,
                    offset * workers + worker,
                )[name]  # fmt: skip
                found.setdefault(name, []).append(_has_usable(pairs, task))
    _judge(found, opt, task == "train")


def _judge(found: dict[str, list[bool | None]], opt: Namespace, trains: bool) -> None:
    """Refuse what cannot be trained on.

    Args:
        found: for each corpus, whether the part of each worker has a usable pair; None where it has
            no line at all.
    """
    lacking = [name for name, parts in found.items() if not any(parts)]
    if lacking and (len(lacking) == len(found) or not trains):
        raise CorpusError("; ".join(_empty(name, opt) for name in lacking))
    short = [name for name, parts in found.items() if None in parts] if len(found) > 1 else []
    if short and trains:  # stock ends there in a traceback
        raise CorpusError("; ".join(_short(name, found[name]) for name in short))
    for name in lacking:
        logger = import_module("onmt.utils.logging").logger
        logger.warning("opennmt_sd: %s; the other corpora are trained on", _empty(name, opt))
    parts = [any(part) for part in zip(*found.values())]
    if trains and not all(parts):
        raise CorpusError(
            f"data: worker {parts.index(False) + 1} of {len(parts)} would find no usable pair, and "
            f"wait for ever: the corpora are too small for num_workers {len(parts)}: set "
            "num_workers: 0"
        )


def _short(name: str, parts: list[bool | None]) -> str:
    if not any(part is not None for part in parts):
        return f"data: {name}: its files are empty: leave this corpus out"
    return (
        f"data: {name}: worker {parts.index(None) + 1} of {len(parts)} would find no line of it: "
        f"it is too small for num_workers {len(parts)}: set num_workers: 0"
    )


def _empty(name: str, opt: Namespace) -> str:
    entry = opt.data[name]
    files = " and ".join(str(entry[key]) for key in ("path_src", "path_tgt", "path_txt")
                         if entry.get(key))  # fmt: skip
    names = ", ".join(entry["transforms"])
    lengths = ""
    if "filtertoolong" in entry["transforms"]:
        lengths = (f" (src_seq_length is {opt.src_seq_length}, tgt_seq_length "
                   f"{opt.tgt_seq_length}: raise them)")  # fmt: skip
    through = f"after the transforms {names}{lengths}" if names else "without transforms"
    return (
        f"data: {name}: no pair of {files} is left {through}: the files are empty, all their source"
        " lines are blank, or every pair is filtered"
    )


def _has_usable(pairs: Any, task: str) -> bool | None:
    """Return whether there is a pair that can be used; None where there is no line."""
    process = import_module("onmt.inputters.text_utils").process
    stream, found = iter(pairs), None
    while chunk := list(islice(stream, CHUNK)):
        if process(task, chunk):
            return True
        found = False
    return found


@contextmanager
def _random_state_kept() -> Iterator[None]:
    import numpy as np

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _with_named_lines(load: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `ParallelCorpus.load`: a line that cannot be read is named."""

    @functools.wraps(load)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from load(self, *args, **kwargs)
        except (UnicodeDecodeError, AssertionError) as error:
            fault = None if isinstance(self.src, list) else _first_unreadable(self)
            if fault is None:
                raise
            raise CorpusError(fault) from error

    return wrapped


def _first_unreadable(corpus: Any) -> str | None:
    """Name the first line of a parallel corpus that stock cannot read."""
    parse = import_module("onmt.inputters.text_utils").parse_features
    for path in filter(None, (corpus.src, corpus.tgt, corpus.align)):
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    return (
                        f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}): "
                        "convert the file, for example with iconv -f latin1 -t utf-8"
                    )
                if path != corpus.src:
                    continue
                try:
                    parse(text, n_feats=corpus.n_src_feats, defaults=corpus.src_feats_defaults)
                except AssertionError:
                    return (
                        f"{path}, line {number}: n_src_feats is {corpus.n_src_feats}, so each word "
                        f"must have as many features, each behind a {FEATURE}: "
                        f"{text.strip()[:60]!r}. Set n_src_feats and the transform inferfeats, or "
                        f"replace {FEATURE} in the text"
                    )
    return None
