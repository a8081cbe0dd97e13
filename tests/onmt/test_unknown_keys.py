"""A key that onmt_train would drop in silence is named, with what it is called today."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import pytest

from opennmt_sd.onmt.old_names import GONE, TODAY
from opennmt_sd.onmt.unknown_keys import corpus_faults, known_to_train

Parse = Callable[..., Namespace]
Refused = Callable[..., str]
DROPPED = "is no option of onmt_train, which would drop it in silence: "


@pytest.mark.parametrize(
    ("yaml", "remedy"),
    [
        ("rnn_size: 20", "rnn_size {}today it is hidden_size"),
        ("fp16: true", "fp16 {}today it is model_dtype: fp16"),
        ("model_dir: runs", "model_dir {}today it is save_model"),
        ("src_feats_vocab: {feat_0: a}", "src_feats_vocab {}today it is n_src_feats"),
        ("queue_size: 40", "queue_size {}today it is bucket_size"),
        ("train_src: a.txt", "train_src {}today it is data: {{corpus: {{path_src: FILE}}}}"),
        ("sd: {space: random}", "sd {}write our options flat, such as sd_space or sd_time"),
        ("recurrent_dropout: 0.2", "recurrent_dropout {}did you mean sd_recurrent_dropout?"),
        ("space: random", "space {}did you mean sd_space?"),
        ("hiden_size: 30", "hiden_size {}did you mean hidden_size?"),
        ("Batch-Sizes: 30", "Batch-Sizes {}did you mean batch_size?"),
        ("data_ids: [A, B]", "data_ids {}today it is data, with a corpus of each name"),
        ("lower: true", "lower {}OpenNMT-py 3 does without it: lower-case the texts themselves"),
    ],
)
def test_a_key_that_would_change_the_training(
    parse: Parse, refused: Refused, capsys: pytest.CaptureFixture[str], yaml: str, remedy: str
) -> None:
    line = remedy.format(DROPPED)
    assert f"error: {line}" in refused(yaml=yaml)
    capsys.readouterr()
    parse("-encoder_type", "brnn", "-decoder_type", "rnn", yaml=yaml)
    assert f"opennmt_sd: warning: {line}" in capsys.readouterr().err


def test_on_the_command_line_too(refused: Refused) -> None:
    error = refused("-rnn_size", "500", "--enc_rnn_size=3", "-brnn")
    assert "error: 3 faults in the options:" in error
    assert f"\n  rnn_size {DROPPED}today it is hidden_size\n" in error
    assert f"\n  enc_rnn_size {DROPPED}today it is enc_hid_size\n" in error


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        ("beam_size: 5", f"beam_size {DROPPED}it belongs to onmt_translate: remove it here"),
        (
            "precision: fp32",
            f"precision {DROPPED}it belongs to onmt_translate; in training it is model_dtype",
        ),
        ("max_generator_batches: 2", f"max_generator_batches {DROPPED}OpenNMT-py 3 does without"),
        ("some_key: 3", f"some_key {DROPPED}did you mean "),
        ("fp16: false", f"fp16 {DROPPED}it is off: remove it"),
        ("brnn: no", f"brnn {DROPPED}it is off: remove it"),
        ("rnn_sizes: off", f"rnn_sizes {DROPPED}it is off: remove it"),
    ],
)
def test_a_key_without_a_meaning_here_is_a_warning(
    parse: Parse, capsys: pytest.CaptureFixture[str], yaml: str, line: str
) -> None:
    parse(yaml=yaml)
    assert f"opennmt_sd: warning: {line}" in capsys.readouterr().err


def test_one_file_may_serve_onmt_build_vocab(
    parse: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    parse("-foo", "-1", yaml="num_threads: 2\ndump_samples: true\n")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["foo"]


def test_the_table_names_what_there_is(plugin: None) -> None:
    known = known_to_train()
    assert not {*TODAY, *GONE} & set(known), "such a key is read today"
    for today in TODAY.values():
        name = today.replace(":", " ").replace(",", " ").replace(";", " ").split()[0]
        assert name in known, today


def test_the_keys_of_a_corpus(plugin: None) -> None:
    known = {"path_src": "a", "path_tgt": "b", "weight": 2, "transforms": [], "src_lang": "de"}
    assert corpus_faults({"c": known, "valid": {"path_src": "a"}}) == []
    (fault,) = corpus_faults({"c": {**known, "path_source": "a"}})
    assert fault == (
        "data: c: path_source is no key of a corpus and would be dropped in silence: did you mean "
        "path_src?"
    )
