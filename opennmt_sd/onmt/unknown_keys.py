"""Keys that `onmt_train` does not know and drops in silence: each is told today's name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from opennmt_sd.onmt.compat import options_of
from opennmt_sd.onmt.options import DEFAULTS, looks_like_ours

# Of OpenNMT-py 0.x to 3.4, and a few of OpenNMT-tf: what to write in OpenNMT-py 3.5.1.
TODAY = {
    "rnn_size": "hidden_size",
    "enc_rnn_size": "enc_hid_size",
    "dec_rnn_size": "dec_hid_size",
    "brnn": "encoder_type: sd_brnn",
    "brnn_merge": "encoder_type: sd_brnn",
    "fix_word_vecs_enc": "freeze_word_vecs_enc",
    "fix_word_vecs_dec": "freeze_word_vecs_dec",
    "epochs": "train_steps, in updates",
    "num_epochs": "train_steps, in updates",
    "max_epochs": "train_steps, in updates",
    "max_step": "train_steps",
    "start_epoch": "train_from, with a checkpoint",
    "start_decay_at": "start_decay_steps",
    "start_checkpoint_at": "save_checkpoint_steps",
    "learning_rate_decay_steps": "decay_steps",
    "lr": "learning_rate",
    "optimizer": "optim",
    "num_layers": "layers",
    "n_layers": "layers",
    "hidden_dim": "hidden_size",
    "hidden": "hidden_size",
    "embedding_size": "word_vec_size",
    "embedding_dim": "word_vec_size",
    "emb_size": "word_vec_size",
    "bidirectional": "encoder_type: sd_brnn",
    "attention": "global_attention",
    "clip": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "patience": "early_stopping",
    "report_steps": "report_every",
    "save_steps": "save_checkpoint_steps",
    "eval_steps": "valid_steps",
    "validation_steps": "valid_steps",
    "output_dir": "save_model, a path with the beginning of a name",
    "save_dir": "save_model, a path with the beginning of a name",
    "resume": "train_from, with a checkpoint",
    "checkpoint": "train_from, with a checkpoint",
    "lr_decay": "learning_rate_decay",
    "gpuid": "gpu_ranks, with world_size",
    "gpu": "gpu_ranks, with world_size",
    "gpus": "gpu_ranks, with world_size",
    "fp16": "model_dtype: fp16",
    "fp32": "model_dtype: fp32",
    "amp": "model_dtype: fp16",
    "precision": "model_dtype",
    "pool_factor": "bucket_size",
    "queue_size": "bucket_size, with num_workers",
    "batch_queue_size": "bucket_size, with num_workers",
    "max_generator_batches": None,
    "dynamic_dict": None,
    "shard_size": None,
    "bptt": "truncated_decoder",
    "model_dir": "save_model, a path with the beginning of a name",
    "train_src": "data: {corpus: {path_src: FILE}}",
    "train_tgt": "data: {corpus: {path_tgt: FILE}}",
    "train_align": "data: {corpus: {path_align: FILE}}",
    "valid_src": "data: {valid: {path_src: FILE}}",
    "valid_tgt": "data: {valid: {path_tgt: FILE}}",
    "valid_align": "data: {valid: {path_align: FILE}}",
    "train_features_file": "data: {corpus: {path_src: FILE}}",
    "train_labels_file": "data: {corpus: {path_tgt: FILE}}",
    "eval_features_file": "data: {valid: {path_src: FILE}}",
    "eval_labels_file": "data: {valid: {path_tgt: FILE}}",
    "source_vocabulary": "src_vocab",
    "target_vocabulary": "tgt_vocab",
    "src_feats": "n_src_feats, with the transform inferfeats",
    "src_feats_vocab": "n_src_feats; the files are src_vocab's name with _feat0, _feat1, ...",
    "feat_vocab": "n_src_feats; the files are src_vocab's name with _feat0, _feat1, ...",
    "feat_padding": "src_feats_defaults",
    "reversible_tokenization_feats": "reversible_tokenization",
    "filter_feats": None,
    "pyonmttok_kwargs": "src_onmttok_kwargs and tgt_onmttok_kwargs",
    "onmttok_kwargs": "src_onmttok_kwargs and tgt_onmttok_kwargs",
    "subword_model": "src_subword_model and tgt_subword_model",
    "subword_type": "src_subword_type and tgt_subword_type",
    "seq_length": "src_seq_length and tgt_seq_length, with the transform filtertoolong",
    "max_sent_length": "src_seq_length and tgt_seq_length, with the transform filtertoolong",
    "sample_rate": None,
    "window_size": None,
    "image_channel_size": None,
    "audio_enc_pooling": None,
    "audio_encoder_type": None,
}  # fmt: skip

TYPO = 0.75  # as like as that, a key is a known one misspelt

# Of a corpus in `data`; the transforms `clean` and `normalize` also look up options of their own.
CORPUS_KEYS = ("path_src", "path_tgt", "path_txt", "path_align", "transforms", "weight",
               "src_prefix", "tgt_prefix", "src_suffix", "tgt_suffix")  # fmt: skip
CORPUS_TODAY = {"src_feats": TODAY["src_feats"], "n_src_feats": "n_src_feats, outside of data"}


def names_of(unknown: Iterable[str]) -> list[str]:
    """Return the keys among what a parser left over: ``--key=value``, or ``-key``, ``value``."""
    words = (word.lstrip("-").partition("=")[0] for word in unknown if word.startswith("-"))
    return [*dict.fromkeys(word for word in words if word[:1].isalpha() or word[:1] == "_")]


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
    keys = [key for key in names_of(unknown) if not looks_like_ours(key)]
    known, elsewhere = (known_to_train(), _of_other_commands()) if keys else ([], {})
    found = (_dropped(key, known, elsewhere) for key in keys)
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


def _dropped(key: str, known: Collection[str], elsewhere: dict[str, str]) -> DroppedKey | None:
    name = key.lower().replace("-", "_")
    if elsewhere.get(name) == "onmt_build_vocab":
        return None  # one file may serve both
    if name == "sd":
        options = " or ".join([*DEFAULTS][:3])
        return DroppedKey(key, f"write our options flat, such as {options}", matters=True)
    if f"sd_{name}" in DEFAULTS:
        return DroppedKey(key, f"did you mean sd_{name}?", matters=True)
    if today := TODAY.get(name):
        return DroppedKey(key, f"today it is {today}", matters=True)
    if name in TODAY:
        return DroppedKey(key, "OpenNMT-py 3 does without it: remove it", matters=False)
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
