"""What the plugin mends in translation, of its own decoders and of stock's RNN decoders.

Most of OpenNMT-py is only half imported when the plugin is registered, so that the rest is wrapped
later, in :func:`mend_translation`: once options of a translation are parsed, or a model is loaded.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from opennmt_sd.onmt.translation_checks import check_translation
from opennmt_sd.seq2seq.wrapping import Function, wrap


def register_translation() -> None:
    """Wrap what there is at registration: loading, and the decoder with input feed."""
    builder = import_module("onmt.model_builder")
    wrap(builder, "load_test_model", _with_translation_check)
    decoders = import_module("onmt.decoders.decoder")
    wrap(decoders.InputFeedRNNDecoder, "forward", _with_attention_for_translation)
    wrap(import_module("onmt.models.model").BaseModel, "load_state_dict", _with_copy_weights)


def mend_translation() -> None:
    """Wrap what translates. Doing it again changes nothing."""
    from opennmt_sd.onmt import copying, lines, search

    translator: Any = import_module("onmt.translate.translator")
    translator.BeamSearch, translator.GreedySearch = search.BeamSearch, search.GreedySearch
    wrap(translator.Translator, "translate_batch", lines.with_blanks_left_out)
    wrap(translator.Translator, "_translate_batch_with_strategy", _with_bounds)
    wrap(translator.Translator, "_score_target", copying.with_scores_of_copies)
    wrap(translator.Inference, "_decode_and_generate", copying.with_copies)
    wrap(translator.Inference, "_translate", lines.with_nothing_to_do)
    wrap(translator.Inference, "_report_score", lines.with_worded_lines_counted)
    builder = import_module("onmt.translate.translation").TranslationBuilder
    wrap(builder, "_build_target_tokens", lines.with_whole_words)
    iterator = import_module("onmt.inputters.dynamic_iterator").DynamicDatasetIter
    wrap(iterator, "_tuple_to_json_with_tokIDs", lines.with_all_lines)
    misc = import_module("onmt.transforms.misc")
    wrap(misc.FilterTooLongTransform, "apply", lines.with_a_source_alone)
    text = import_module("onmt.inputters.text_utils")
    wrap(text, "parse_features", lines.with_features_of_blanks)
    wrap(text, "textbatch_to_tensor", copying.with_copy_keys)
    engine = import_module("onmt.inference_engine").InferenceEngine
    wrap(engine, "infer_list", lines.with_an_empty_list)


def _with_translation_check(load_test_model: Function) -> Function:
    """Wrap `load_test_model`: what loads a model for translate and server."""

    @functools.wraps(load_test_model)
    def wrapped(opt: Namespace, device_id: int = 0, model_path: str | None = None) -> Any:
        check_translation(opt, opt.models[0] if model_path is None else model_path)
        mend_translation()
        vocabs, model, model_opt = load_test_model(opt, device_id, model_path)
        vocabs["copies"] = model_opt.copy_attn  # for the server's batches
        return vocabs, model, model_opt

    return wrapped


def _with_copy_weights(load_state_dict: Function) -> Function:
    """Wrap `BaseModel.load_state_dict`: a copying generator's weights, which stock saves by one
    name and looks for by another (OpenNMT-py issue 2503)."""

    @functools.wraps(load_state_dict)
    def wrapped(self: Any, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        generator = checkpoint.get("generator") or {}
        for key in [key for key in generator if key.startswith(("linear.", "linear_copy."))]:
            checkpoint["model"][f"generator.{key}"] = generator.pop(key)
        return load_state_dict(self, checkpoint, *args, **kwargs)

    return wrapped


def _with_bounds(translate: Function) -> Function:
    """Wrap `Translator._translate_batch_with_strategy`: a sentence's own longest translation."""

    @functools.wraps(translate)
    def wrapped(self: Any, batch: dict[str, Any], strategy: Any) -> dict[str, Any]:
        from opennmt_sd.onmt.search import Score

        bounds = torch.full_like(batch["srclen"], self.max_length)
        if self.max_length_ratio > 0:
            by_source = batch["srclen"].double() * self.max_length_ratio + 5
            bounds = torch.minimum(bounds, by_source.long())
        strategy.longest = bounds.tolist()
        results: dict[str, Any] = translate(self, batch, strategy)
        results["scores"] = [[Score(score) for score in best] for best in results["scores"]]
        return results

    return wrapped


def _with_attention_for_translation(forward: Function) -> Function:
    """Wrap `InputFeedRNNDecoder.forward`, stock's and ours: attention as translation reads it.

    Translation reads ``[B, T, S]``, as every other decoder gives it. Stock gives ``[T, B, S]`` with
    input feed, and fails on replace_unk, attn_debug, coverage_penalty and mixed ensembles. And its
    attention of copies falls on padding, too: not in evaluation.
    """

    @functools.wraps(forward)
    def wrapped(
        self: Any,
        tgt: Tensor,
        enc_out: Tensor,
        src_len: Any = None,
        step: Any = None,
        **kwargs: Any,
    ) -> Any:
        hook = None
        if self.copy_attn is not None and not self.training:
            hook = self.copy_attn.register_forward_pre_hook(
                lambda _, args, kwargs: (args, {**kwargs, "src_len": src_len}), with_kwargs=True
            )
        try:
            out, attns = forward(self, tgt, enc_out, src_len=src_len, step=step, **kwargs)
        finally:
            if hook is not None:
                hook.remove()
        if step is not None or "return_attn" in kwargs:  # which a translator alone says
            attns = {name: weights.transpose(0, 1) for name, weights in attns.items()}
        return out, attns

    return wrapped
