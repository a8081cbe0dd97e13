"""The options in onmt_train's own parser: help, YAML, command line, and every wrong way."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from opennmt_sd.seq2seq.dropout_plan import PLACES, option
from opennmt_sd.seq2seq.options import DEFAULTS

Parse = Callable[..., Namespace]
Refused = Callable[..., str]


def test_help_shows_a_group_with_every_option(plugin: None) -> None:
    from onmt.bin.train import _get_parser

    text = _get_parser().format_help()
    assert "Structured dropout (opennmt_sd):" in text
    for key in DEFAULTS:
        assert f"--{key}" in text


def test_defaults(parse: Parse) -> None:
    opt = parse()
    assert opt.sd_space == "structured"
    assert opt.sd_time == "random"
    assert opt.sd_count == "exact"
    assert parse("-sd_space", "random").sd_count == "bernoulli"
    assert parse("-encoder_type", "brnn", "-decoder_type", "rnn").sd_count is None
    assert opt.sd_recurrent_dropout == 0.0
    followers = [place for place in PLACES if place != "recurrent"]
    assert [getattr(opt, option(place)) for place in followers] == [None] * 5


def test_yaml_is_read_and_the_command_line_wins(parse: Parse) -> None:
    yaml = "sd_space: random\nsd_recurrent_dropout: 0.2\nsd_output_dropout: null\n"
    opt = parse("-sd_recurrent_dropout", "0.4", "--sd_encoder_dropout", "0", yaml=yaml)
    assert opt.sd_space == "random"
    assert opt.sd_recurrent_dropout == 0.4
    assert opt.sd_encoder_dropout == 0.0
    assert opt.sd_output_dropout is None


def test_our_part_of_a_saved_config_reads_back(parse: Parse, tmp_path: Path) -> None:
    saved = tmp_path / "saved.yaml"
    with pytest.raises(SystemExit) as exit_:
        parse("-sd_time", "fixed", "-save_config", str(saved))
    assert exit_.value.code == 0
    ours = [line for line in saved.read_text().splitlines() if line.startswith("sd_")]
    assert "sd_time: fixed" in ours
    opt = parse(yaml="\n".join(ours))  # stock cannot read its own `lora_layers: []` back
    assert opt.sd_time == "fixed"
    assert opt.sd_output_dropout is None


def test_values_survive_a_checkpoint_without_unpickling_code(parse: Parse) -> None:
    saved = {key: getattr(parse("-sd_output_dropout", "0.1"), key) for key in DEFAULTS}
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == saved


def test_old_checkpoints_get_the_defaults(plugin: None) -> None:
    from onmt.utils.parse import ArgumentParser

    opt = ArgumentParser.ckpt_model_opts(Namespace(encoder_type="brnn", dropout=0.3))
    assert {key: getattr(opt, key) for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sd_patern", "sd_space"),
        ("sd_spce", "sd_space"),
        ("sd_rec", "sd_recurrent_dropout"),  # argparse would take an abbreviation in silence
        ("sd_recurent_dropout", "sd_recurrent_dropout"),
        ("sd_src_dropout", "sd_src_embedding_dropout"),
        ("sd-time", "sd_time"),
        ("SD_TIME", "sd_time"),
    ],
)
@pytest.mark.parametrize("way", ["yaml", "-", "--"])
def test_an_unknown_key_names_the_nearest(
    refused: Refused, key: str, nearest: str, way: str
) -> None:
    error = refused(yaml=f"{key}: 0.5\n") if way == "yaml" else refused(f"{way}{key}", "0.5")
    assert error.endswith(f"error: {key} is no option: did you mean {nearest}?\n")


def test_other_unknown_keys_stay_stocks_business(parse: Parse) -> None:
    parse("-nonsense", "1", yaml="some_key: 3\n")


@pytest.mark.parametrize("rate", ["1", "1.7", "-0.1", "nan", "inf"])
@pytest.mark.parametrize("key", ["dropout", *(option(place) for place in PLACES)])
def test_a_rate_outside_0_1_is_refused(refused: Refused, key: str, rate: str) -> None:
    error = refused(yaml=f"{key}: {rate}\n")
    assert f"error: {key} {float(rate)} is outside [0, 1)" in error


def test_a_later_rate_of_a_schedule_is_checked_too(refused: Refused) -> None:
    assert "dropout 1.5 is outside" in refused("-dropout", "0.3", "1.5", "-dropout_steps", "0", "9")


@pytest.mark.parametrize(
    ("yaml", "text"),
    [
        ("sd_space: structurd", "sd_space 'structurd' is unknown: use structured or random"),
        ("sd_time: sometimes", "sd_time 'sometimes' is unknown: use random or fixed"),
        ("sd_count: about", "sd_count 'about' is unknown: use bernoulli or exact"),
        ("sd_output_sets: both", "sd_output_sets 'both' is unknown: use staggered or by_step"),
        (
            "sd_matmul_precision: low",
            "sd_matmul_precision 'low' is unknown: use highest, high or medium, or remove it",
        ),
        (
            "sd_count: exact\nsd_space: random",
            "sd_count exact needs sd_space structured: sentences that each drop their own units "
            "have no set of one size to share; set sd_count bernoulli, or sd_space structured",
        ),
        ("encoder_type: sd_brn", "encoder_type sd_brn is unknown: did you mean sd_brnn?"),
        ("decoder_type: sd_brnn", "decoder_type sd_brnn is unknown: did you mean sd_rnn?"),
        ("encoder_type: SD-BRNN", "encoder_type SD-BRNN is unknown: did you mean sd_brnn?"),
    ],
)
def test_an_unknown_value_names_the_known_ones(refused: Refused, yaml: str, text: str) -> None:
    assert text in refused(yaml=yaml)


def test_all_faults_are_shown_at_once(refused: Refused) -> None:
    error = refused("-sd_patern", "x", yaml="sd_space: flat\ndropout: 1.7\nrnn_type: SRU\n")
    assert "error: 4 faults in the options:" in error
    for start in ("sd_patern is no option", "sd_space 'flat'", "dropout 1.7", "rnn_type SRU"):
        assert f"\n  {start}" in error


@pytest.mark.parametrize(
    ("types", "own", "text"),
    [
        (
            ("brnn", "rnn"),
            ("sd_recurrent_dropout", "0.2"),
            "sd_recurrent_dropout 0.2 would be ignored with encoder_type brnn and decoder_type "
            "rnn: set encoder_type: sd_brnn or sd_rnn or decoder_type: sd_rnn, or remove it",
        ),
        (
            ("sd_brnn", "rnn"),
            ("sd_output_dropout", "0.0"),
            "sd_output_dropout 0.0 would be ignored with encoder_type sd_brnn and decoder_type "
            "rnn: set decoder_type: sd_rnn, or remove it",
        ),
        (("rnn", "rnn"), ("sd_time", "fixed"), "sd_time fixed would be ignored with"),
    ],
    ids=["neither_is_ours", "stock_decoder", "pattern"],
)
def test_options_that_nothing_reads_are_refused(
    refused: Refused, types: tuple[str, str], own: tuple[str, str], text: str
) -> None:
    args = ("-encoder_type", types[0], "-decoder_type", types[1])
    assert text in refused(*args, f"-{own[0]}", own[1])


def test_stock_types_keep_stocks_rules(parse: Parse) -> None:
    opt = parse("-encoder_type", "brnn", "-decoder_type", "rnn", "-dropout", "1.0")
    assert opt.dropout == [1.0]


def test_what_older_versions_saved_of_stock_types_is_read(parse: Parse, refused: Refused) -> None:
    """`-save_config` writes defaults too, and an older one's was what stock's dropout is."""
    types = ("-encoder_type", "brnn", "-decoder_type", "rnn")
    saved = "sd_space: structured\nsd_time: random\nsd_output_sets: staggered\nsd_count: {}\n"
    assert parse(*types, yaml=saved.format("bernoulli")).sd_count == "bernoulli"
    assert "sd_count exact would be ignored with encoder_type brnn" in refused(
        *types, yaml=saved.format("exact")
    )


def test_build_vocab_takes_the_same_config(plugin: None, tmp_path: Path) -> None:
    from onmt.bin.build_vocab import _get_parser

    config = tmp_path / "config.yaml"
    config.write_text("data: {}\nsrc_vocab: v\nsave_data: s\nsd_space: random\n")
    opt, unknown = _get_parser().parse_known_args(["-config", str(config), "-n_sample", "1"])
    assert opt.n_sample == 1
    assert unknown == ["--sd_space=random"]


@pytest.mark.parametrize("spelling", ["-override_opts", "--override_opts", "-override-opts"])
def test_override_opts_is_heard_in_every_spelling(parse: Parse, spelling: str) -> None:
    assert parse(spelling).override_opts is True
