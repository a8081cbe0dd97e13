"""A line in, a line out.

A blank source line has an empty translation, with a score of 0, and so has a line that a transform
left out. (Stock drops both, so that the lines after them move up, and ends in a traceback where no
line is left.) On its way through OpenNMT-py a blank line is a sentence of one word, the padding.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from onmt.constants import CorpusTask, DefaultTokens, ModelTask
from onmt.inputters.text_utils import _addcopykeys, numericalize, process
from torch import Tensor

from opennmt_sd.seq2seq.wrapping import Function

PAD, EOS = DefaultTokens.PAD, DefaultTokens.EOS


def with_all_lines(stock: Function) -> Function:
    """Wrap `DynamicDatasetIter._tuple_to_json_with_tokIDs`: an example for each line."""

    @functools.wraps(stock)
    def wrapped(self: Any, bucket: list[tuple[dict[str, Any], Any, str]]) -> list[dict[str, Any]]:
        merges = any(getattr(t, "max_context", 0) for t in self.transforms.values())  # docify
        translates = self.task == CorpusTask.INFER
        if not translates or merges or self.vocabs["data_task"] != ModelTask.SEQ2SEQ:
            return stock(self, bucket)
        lines = [dict(example) for example, _, _ in bucket]
        worded = process(self.task, [item for item in bucket if any(item[0]["src"])]) or ()
        examples = {example["cid_line_number"]: example for example in worded}
        targets = any(example["tgt"] is not None for example in worded)
        numbered = []
        for line in lines:
            example = examples.get(line["cid_line_number"]) or _blank(line, self.vocabs, targets)
            if line["tgt"] is not None and not any(line["tgt"]):
                # What a transform puts to a blank target stands alone.
                example["tgt"]["tgt"] = example["tgt"]["tgt"].strip()
            numbered.append(_numbered(self, example))
        return numbered

    return wrapped


def _blank(line: dict[str, Any], vocabs: dict[str, Any], targets: bool) -> dict[str, Any]:
    """Give the example of a line without words.

    Args:
        targets: whether others have a target: of a file, or of a transform's making.
    """
    tgt = line["tgt"] or ([""] if targets else None)
    example = {**line, "src": {"src": PAD}, "tgt": tgt and {"tgt": " ".join(tgt)}}
    if example.pop("src_feats", None) is not None:
        example["src"]["feats"] = [PAD] * len(vocabs["src_feats"])
    return example


def _numbered(batches: Any, example: dict[str, Any]) -> dict[str, Any]:
    """Give an example with its words as numbers, as stock does."""
    vocabs = batches.vocabs
    if batches.copy:
        example = _addcopykeys(vocabs, example)
    example = numericalize(vocabs, example)
    if example["tgt"] and not example["tgt"]["tgt"].strip():
        # Stock reads one unknown word. The padding stands where stock reads that, too.
        start, tgt = vocabs["decoder_start_token"], vocabs["tgt"]
        example["tgt"]["tgt_ids"] = tgt([start, EOS, PAD])
    return example


def with_features_of_blanks(stock: Function) -> Function:
    """Wrap `parse_features`: a blank line has no word, so no feature is missing."""

    @functools.wraps(stock)
    def wrapped(line: str, n_feats: int = 0, defaults: Any = None) -> tuple[str, list[str] | None]:
        if n_feats and not line.strip():
            return "", [""] * n_feats
        return stock(line, n_feats=n_feats, defaults=defaults)

    return wrapped


def with_a_source_alone(stock: Function) -> Function:
    """Wrap `FilterTooLongTransform.apply`: where there is no target, the source alone counts."""

    @functools.wraps(stock)
    def wrapped(self: Any, example: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if example["tgt"] is not None:
            return stock(self, example, *args, **kwargs)
        kept = stock(self, {**example, "tgt": []}, *args, **kwargs)
        return None if kept is None else example

    return wrapped


def with_blanks_left_out(stock: Function) -> Function:
    """Wrap `Translator.translate_batch`: blank lines do not reach the model."""

    @functools.wraps(stock)
    def wrapped(self: Any, batch: dict[str, Any], attn_debug: bool) -> dict[str, Any]:
        # Of one word: a text may hold the padding's.
        blank = (batch["src"][:, 0, 0] == self.vocabs["src"][PAD]) & (batch["srclen"] == 1)
        if not blank.any():
            return stock(self, batch, attn_debug)
        self.blank_lines = getattr(self, "blank_lines", 0) + int(blank.sum())
        rows = (~blank).nonzero().flatten()
        results: dict[str, Any] = {"gold_log_probs": None}
        if len(rows):
            part = {key: _rows(value, rows) for key, value in batch.items()}
            results = stock(self, part, attn_debug)
        end = torch.tensor([self._tgt_eos_idx], device=blank.device)
        nothing = {
            "predictions": [end] * self.n_best,
            "scores": [_zero()] * self.n_best,
            "attention": [torch.zeros(0, 1)] * self.n_best,
            "gold_score": _zero(),
            "alignment": [torch.zeros(0, 1)] * self.n_best if self.report_align else [],
        }
        for key, value in nothing.items():
            found = iter(results.get(key, ()))
            results[key] = [value if empty else next(found) for empty in blank.tolist()]
        return {**results, "batch": batch}

    return wrapped


def _zero() -> float:
    from opennmt_sd.onmt.search import Score

    return Score(0.0)


def _rows(value: Any, rows: Tensor) -> Any:
    return value[rows] if isinstance(value, Tensor) else [value[i] for i in rows.tolist()]


class _Begun:
    """Batches whose first has been looked at.

    Attributes:
        first: the first batch, or None.
    """

    def __init__(self, batches: Any) -> None:
        self._batches, self._iterator = batches, iter(batches)
        self.first = next(self._iterator, None)

    def __iter__(self) -> Iterator[Any]:
        return chain([self.first], self._iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def with_nothing_to_do(stock: Function) -> Function:
    """Wrap `Inference._translate`: no line, no translation, and no traceback; and what a copying
    model needs to know of its sources."""

    @functools.wraps(stock)
    def wrapped(self: Any, infer_iter: Any, *args: Any, **kwargs: Any) -> Any:
        if self.copy_attn and hasattr(infer_iter, "copy") and not isinstance(infer_iter, list):
            infer_iter.copy = True  # stock's inference never asks for it
        self.blank_lines = 0
        batches = infer_iter if isinstance(infer_iter, list) else _Begun(infer_iter)
        if not batches if isinstance(batches, list) else batches.first is None:
            if self.report_score:
                self._log(self._report_score("PRED", 0.0, 0))
            return [], []
        return stock(self, batches, *args, **kwargs)

    return wrapped


def with_worded_lines_counted(stock: Function) -> Function:
    """Wrap `Inference._report_score`: the mean is that of the lines which the model has seen."""

    @functools.wraps(stock)
    def wrapped(self: Any, name: str, score_total: float, nb_sentences: int) -> Any:
        return stock(self, name, score_total, nb_sentences - getattr(self, "blank_lines", 0))

    return wrapped


def with_an_empty_list(stock: Function) -> Function:
    """Wrap `InferenceEngine.infer_list`: for no lines stock would translate the options' file."""

    @functools.wraps(stock)
    def wrapped(self: Any, src: Sequence[str]) -> Any:
        return stock(self, src) if len(src) else ([], [])

    return wrapped


class _Shifted:
    """A list whose n-th item is read at n - shift."""

    def __init__(self, items: Sequence[str], shift: int) -> None:
        self._items, self._shift = items, shift

    def __getitem__(self, n: int) -> str:
        return self._items[n + self._shift]


def with_whole_words(stock: Function) -> Function:
    """Wrap `TranslationBuilder._build_target_tokens`: up to the end, copies of the right source
    word, and no line break or tab within a word.

    A copied word may hold one: a source line ends at a line feed alone, and its words at a space.
    Stock looks a copy up behind the source's vocabulary, where the target's is before it.
    """

    @functools.wraps(stock)
    def wrapped(
        self: Any, src: Any, srclen: Any, pred: Tensor, attn: Any, voc: list[str], dyn_voc: Any
    ) -> list[str]:
        ends = (pred == self.vocabs["tgt"][EOS]).nonzero()
        if len(ends):  # behind it there is padding
            pred = pred[: int(ends[0]) + 1]
        if dyn_voc is not None:
            shift = len(self.vocabs["src"].ids_to_tokens) - len(voc)
            dyn_voc = SimpleNamespace(ids_to_tokens=_Shifted(dyn_voc.ids_to_tokens, shift))
        tokens = stock(self, src, srclen, pred, attn, voc, dyn_voc)
        return [" ".join(token.replace("\t", "\n").splitlines()) for token in tokens]

    return wrapped
