"""Input files of a training that are missing or cannot be used: said before any of them is read."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # it ships no types

from opennmt_sd.onmt.checkpoint import CheckpointError, check_file, read_pickle
from opennmt_sd.onmt.unknown_keys import corpus_faults
from opennmt_sd.onmt.vocabulary_file import VocabularyError, read_vocabulary


def input_faults(opt: Namespace, *, builds_vocabulary: bool, ours: bool) -> list[str]:
    """Return what is wrong with the files that the options name, one text each.

    Args:
        opt: of ``onmt_train`` or ``onmt_build_vocab``, as parsed.
        builds_vocabulary: the command makes the vocabularies, so that they need not be there.
        ours: a model of ours is trained.
    """
    faults = [*_data_faults(opt, ours)]
    if not builds_vocabulary:
        faults += _vocabulary_faults(opt)
        faults += _vector_faults(opt)
        faults += _output_faults(opt)
    return faults


def corpus_warnings(opt: Namespace) -> list[str]:
    """Return what stock takes of corpora, and may not be meant, where it is no fault: one text
    each. The options are those of ``onmt_build_vocab``, or of a model of stock's."""
    corpora = opt.data if isinstance(opt.data, dict) else yaml.safe_load(opt.data)
    builds_vocabulary = not hasattr(opt, "train_from")
    missing = _target_faults(corpora) if builds_vocabulary and not opt.share_vocab else ()
    return [*corpus_faults(corpora), *missing]


def _data_faults(opt: Namespace, ours: bool) -> Iterator[str]:
    try:
        corpora = opt.data if isinstance(opt.data, dict) else yaml.safe_load(opt.data)
    except yaml.YAMLError as error:
        yield f"data is no YAML: {error}"
        return
    if not isinstance(corpora, dict) or not all(isinstance(c, dict) for c in corpora.values()):
        yield (
            f"data {str(opt.data)[:60]!r} names no corpora: write data: {{corpus: {{path_src: FILE,"
            " path_tgt: FILE}, valid: {path_src: FILE, path_tgt: FILE}}"
        )
        return
    if not set(corpora) - {"valid"}:
        yield "data names no training corpus: add one, by any name but valid"
    if ours:
        yield from corpus_faults(corpora)
        yield from _target_faults(corpora)
    yield from _weight_faults(corpora, whole=ours)
    transforms = import_module("onmt.transforms").AVAILABLE_TRANSFORMS
    for name, corpus in corpora.items():
        yield from _corpus_faults(name, corpus, transforms)


def _target_faults(corpora: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Name corpora without a target: stock takes the source for one, and where it is the last
    corpus, trains as for a language model."""
    for name, corpus in corpora.items():
        if corpus.get("path_tgt") is not None:
            continue
        if corpus.get("path_src") is not None:
            yield (
                f"data: {name}: path_tgt is missing: the source would be taken for it. Name the "
                "file with the translations (or path_src's, for copies)"
            )
        elif corpus.get("path_txt") is not None:
            yield (
                f"data: {name}: path_txt is a language model's text: name path_src and path_tgt, "
                "with a line of each for a pair"
            )


def _weight_faults(corpora: Mapping[str, dict[str, Any]], *, whole: bool) -> Iterator[str]:
    """Judge weights as stock reads them, by ``int``; 0 leaves a corpus out.

    Args:
        whole: whether what ``int`` cuts off is a fault.
    """
    weights = {name: corpus.get("weight") for name, corpus in corpora.items() if name != "valid"}
    counts: list[int] = []
    for name, given in weights.items():
        weight = 1 if given is None else given
        try:
            counts.append(int(weight))
            good = not whole or (int(weight) == float(weight) and int(weight) >= 0)
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            yield f"data: {name}: weight {weight!r} must be a whole number of 0 or more"
    if counts and len(counts) == len(weights) and max(counts) < 1:
        yield "data: every training corpus has weight 0: give one that is trained on 1 or more"


def _corpus_faults(name: str, corpus: dict[str, Any], transforms: Collection[str]) -> Iterator[str]:
    if corpus.get("path_src") is None and corpus.get("path_txt") is None:
        yield f"data: {name}: path_src is missing"
    faults = [
        fault
        for key in ("path_src", "path_tgt", "path_txt", "path_align")
        if corpus.get(key) is not None
        for fault in file_fault(f"data: {name}: {key}", corpus[key], "a text file")
    ]
    yield from faults or _length_faults(name, corpus)
    named = corpus.get("transforms") or []
    if not isinstance(named, list):
        yield f"data: {name}: transforms {named!r} must be a list: write [{named}]"
        return
    unknown = [str(word) for word in named if word not in transforms]
    for word in unknown:
        yield f"data: {name}: the transform {word} is unknown: use {', '.join(sorted(transforms))}"


def _length_faults(name: str, corpus: dict[str, Any]) -> Iterator[str]:
    """Name files that are no pairs of lines. Stock ends where the shortest does, in silence, and
    whatever shifted the lines has shifted them all: each is trained on beside another's."""
    keys = [key for key in ("path_src", "path_tgt", "path_align") if corpus.get(key) is not None]
    lines = {key: _lines(Path(corpus[key])) for key in keys}
    shortest = min((count for count, _ in lines.values()), default=0)
    if any(last > shortest for _, last in lines.values()):  # blanks at an end are no harm
        found = ", ".join(f"{key} {corpus[key]} has {n:,}" for key, (n, _) in lines.items())
        yield (
            f"data: {name}: its files have not equally many lines ({found}): which belong together?"
            " Give one line for each, a blank one where there is none"
        )


def _lines(path: Path) -> tuple[int, int]:
    """Return how many lines a file has, and the number of the last that is not blank."""
    count = last = 0
    with open(path, "rb") as file:
        for count, line in enumerate(file, 1):
            if not line.isspace():
                last = count
    return count, last


def _vocabulary_faults(opt: Namespace) -> Iterator[str]:
    if opt.train_from and not opt.update_vocab:
        return  # the checkpoint's count
    paths = {"src_vocab": opt.src_vocab}
    if not opt.share_vocab:
        paths["tgt_vocab"] = opt.tgt_vocab
    paths.update({f"src_vocab (feature {i})": f"{opt.src_vocab}_feat{i}"
                  for i in range(opt.n_src_feats)})  # fmt: skip
    for key, path in paths.items():
        if not path:
            yield f"{key} is missing: name a file of onmt_build_vocab's, or set share_vocab: true"
            continue
        fault = [*file_fault(key, path, "a file of onmt_build_vocab's")]
        yield from fault
        if not fault:
            least = _least_count(opt, key)
            try:
                if not read_vocabulary(path, least) and least > 1:
                    yield (
                        f"{key} {path}: no word is seen {least} times, which "
                        f"{key[:3]}_words_min_frequency asks for: lower it"
                    )
            except VocabularyError as error:
                yield f"{key} {error}"


def _least_count(opt: Namespace, key: str) -> int:
    """Return how often a word of a vocabulary must have been seen; 0 for features."""
    side = key.removesuffix("_vocab")
    return int(getattr(opt, f"{side}_words_min_frequency", 0) or 0)


def _vector_faults(opt: Namespace) -> Iterator[str]:
    """Check files of word vectors, as text, or as a tensor that is read when it is needed."""
    texts = [key for key in ("both_embeddings", "src_embeddings", "tgt_embeddings")
             if getattr(opt, key, None)]  # fmt: skip
    for key in (*texts, "pre_word_vecs_enc", "pre_word_vecs_dec"):
        if getattr(opt, key, None):
            yield from file_fault(key, getattr(opt, key), "a file of word vectors")
    if texts and not opt.embeddings_type:
        yield f"{texts[0]} needs embeddings_type: GloVe or word2vec"
    if texts and not opt.save_data:
        yield f"{texts[0]} needs save_data, the beginning of the path it is written to"
    elif texts and not (folder := Path(opt.save_data).absolute().parent).is_dir():
        yield f"save_data {opt.save_data}: there is no folder {folder}: make it"
    if "both_embeddings" in texts and len(texts) > 1:
        yield f"both_embeddings is for both sides: remove {' and '.join(texts[1:])}"


def vector_size_faults(opt: Namespace, vocabs: Mapping[str, Any]) -> Iterator[str]:
    """Name word vectors that do not fit a vocabulary: stock would fail, or cut them."""
    for key, side in (("pre_word_vecs_enc", "src"), ("pre_word_vecs_dec", "tgt")):
        path = getattr(opt, key, None)
        if not path:
            continue
        vectors, count = read_pickle(Path(path)), len(vocabs[side])
        if not isinstance(vectors, torch.Tensor) or vectors.dim() != 2:
            yield f"{key} {path} must hold one tensor, [words, width]"
        elif len(vectors) != count:
            yield (
                f"{key} {path} has {len(vectors)} rows, the {side} vocabulary {count} words: "
                f"make it with {side}_embeddings, from this vocabulary"
            )
        elif vectors.shape[1] != (width := getattr(opt, f"{side}_word_vec_size")):
            yield (
                f"{key} {path} has a width of {vectors.shape[1]}, {side}_word_vec_size is {width}: "
                f"set {side}_word_vec_size: {vectors.shape[1]}"
            )


def _output_faults(opt: Namespace) -> Iterator[str]:
    folder = Path(opt.save_model).absolute().parent
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if nearest != folder and nearest.is_relative_to("/proc"):
        yield f"save_model {opt.save_model}: {folder} cannot be made: name another path"
    elif not nearest.is_dir():
        yield f"save_model {opt.save_model}: {nearest} is no folder: name another path"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield f"save_model {opt.save_model}: you may not write into {nearest}: name another path"
    if opt.tensorboard and find_spec("tensorboard") is None:
        yield "tensorboard needs a package that is not installed: pip install tensorboard"


def file_fault(key: str, path: Any, kind: str, *, pipes: bool = False) -> Iterator[str]:
    """Name what is wrong with a file that an option names: see :func:`check_file`."""
    try:
        check_file(Path(str(path)), kind, pipes=pipes)
    except CheckpointError as error:
        yield f"{key} {error}"
