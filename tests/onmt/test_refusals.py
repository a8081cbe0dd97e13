"""What cannot work is refused before data is read, with the reason and the remedy."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from opennmt_sd.onmt.refusals import (
    UnsupportedOptionsError,
    check_training,
)
from opennmt_sd.onmt.translation_checks import check_translation

Parse = Callable[..., Namespace]
Refused = Callable[..., str]

# What is set, how the text begins, and what it says to do instead.
TABLE = {
    "SRU": (
        "rnn_type: SRU",
        "rnn_type SRU does not work here: ",
        "set rnn_type: LSTM or rnn_type: GRU, or take the stock types (encoder_type: brnn, ",
    ),
    "lm": ("model_task: lm", "model_task lm does not work here: ", "set model_task: seq2seq"),
    "truncated": (
        "truncated_decoder: 5",
        "truncated_decoder 5 does not work here: ",
        "filtertoolong",
    ),
    "sparseadam": ("optim: sparseadam", "optim sparseadam does not work here: ", "optim: adam"),
    "sparsemax": (
        "generator_function: sparsemax",
        "generator_function sparsemax does not work here: ",
        "set generator_function: softmax",
    ),
    "safetensors": (
        "save_format: safetensors",
        "save_format safetensors does not work here: ",
        "set save_format: pytorch",
    ),
    "copy_attn, no input feed": (
        "copy_attn: true\ninput_feed: 0",
        "copy_attn needs input_feed: 1",
        "(it is 0)",
    ),
    "copy_attn, no attention": (
        "copy_attn: true\nglobal_attention: none",
        "copy_attn needs attention to copy from: ",
        "set copy_attn_type: mlp",
    ),
    "copy_attn, ggnn": (
        "copy_attn: true\nencoder_type: ggnn",
        "copy_attn copies words, and encoder_type ggnn attends to nodes",
        "remove one",
    ),
    "ggnn, no input feed": (
        "encoder_type: ggnn\ninput_feed: 0",
        "encoder_type ggnn gives 4 states, and 2 layers with input_feed: 0 start from as many: ",
        "set input_feed: 1, or layers: 4",
    ),
    "copy_attn, update_vocab": (
        "copy_attn: true\nupdate_vocab: true",
        "copy_attn does not work with update_vocab: ",
        "remove update_vocab",
    ),
    "copy_attn, label_smoothing": (
        "copy_attn: true\nlabel_smoothing: 0.1",
        "label_smoothing 0.1 would be ignored with copy_attn: ",
        "set label_smoothing: 0",
    ),
    "lambda_align": (
        "lambda_align: 0.1",
        "lambda_align 0.1 does not work here: ",
        "set lambda_align: 0",
    ),
    "coverage": (
        "coverage_attn: true\ninput_feed: 0",
        "coverage_attn needs input_feed: 1",
        "(it is 0)",
    ),
    "odd": ("hidden_size: 15", "hidden_size 15 must be even with encoder_type sd_brnn", "half"),
    "layers": ("enc_layers: 1\ndec_layers: 2", "enc_layers 1 and dec_layers 2: ", "same number"),
    "fewer_layers": (
        "enc_layers: 2\ndec_layers: 1\ninput_feed: 0",
        "enc_layers 2 and dec_layers 1: ",
        "same number",
    ),
    "schedule": (
        "dropout: [0.3, 0.1]\ndropout_steps: [0, 9]",
        "attention_dropout and dropout_steps must be equally long, got 1 and 2: ",
        "set attention_dropout: [0.0, 0.0]",
    ),
    "steps": (
        "dropout: [0.3, 0.1]",
        "dropout and dropout_steps must be equally long, got 2 and 1: ",
        "give one rate for each step",
    ),
    "stateless": ("encoder_type: cnn", "encoder_type cnn gives no state", "sd_brnn"),
}  # fmt: skip


@pytest.mark.parametrize(("yaml", "start", "remedy"), TABLE.values(), ids=TABLE)
def test_refused_with_our_types(refused: Refused, yaml: str, start: str, remedy: str) -> None:
    error = refused(yaml=yaml)
    assert f"error: {start}" in error
    assert remedy in error


@pytest.mark.parametrize("yaml", [row[0] for name, row in TABLE.items() if name != "SRU"])
def test_stock_types_are_let_through(parse: Parse, yaml: str) -> None:
    parse("-encoder_type", "brnn", "-decoder_type", "rnn", yaml=yaml)


def test_stocks_own_check_of_sru_still_runs(parse: Parse) -> None:
    with pytest.raises(AssertionError, match="cupy"):
        parse("-encoder_type", "brnn", "-decoder_type", "rnn", "-rnn_type", "SRU")


def test_all_at_once(refused: Refused) -> None:
    yaml = "".join(f"{row[0]}\n" for name, row in TABLE.items() if name in ("SRU", "sparsemax"))
    error = refused("-lambda_align", "0.1", "-sd_space", "flat", yaml=yaml)
    assert "error: 4 faults in the options:\n  sd_space 'flat' is unknown" in error


@pytest.mark.parametrize(
    "args",
    [
        ("-layers", "3"),
        ("-enc_layers", "2", "-dec_layers", "1"),
        ("-coverage_attn",),
        ("-copy_attn", "-reuse_copy_attn", "-copy_attn_force", "-copy_loss_by_seqlength"),
        ("-copy_attn", "-copy_attn_type", "mlp", "-global_attention", "none"),
        ("-encoder_type", "sd_rnn", "-hidden_size", "15"),
        ("-encoder_type", "mean", "-input_feed", "0"),
        ("-copy_attn", "-decoder_type", "transformer"),
        ("-optim", "adafactor", "-average_decay", "0.1", "-label_smoothing", "0.1"),
        ("-context_gate", "both", "-bridge", "-global_attention", "mlp"),
        ("-rnn_type", "GRU", "-copy_attn", "-coverage_attn", "-sd_recurrent_dropout", "0.2"),
    ],
    ids=" ".join,
)
def test_what_works_is_let_through(parse: Parse, args: tuple[str, ...]) -> None:
    parse(*args)


@pytest.mark.parametrize("cell", ["SRU", "RNN", "gru"])
def test_without_the_command_line_the_same_holds(parse: Parse, cell: str) -> None:
    opt = parse()
    opt.rnn_type = cell
    with pytest.raises(UnsupportedOptionsError, match=f"rnn_type {cell} .* set rnn_type: LSTM or"):
        check_training(opt, opt)


# A resume: the checkpoint's options win, unless --override_opts.


@pytest.fixture
def checkpoint(parse: Parse, tmp_path: Path) -> Callable[..., str]:
    def checkpoint(**changes: object) -> str:
        opt = copy.copy(parse())
        vars(opt).update(changes)
        path = tmp_path / "model.pt"
        torch.save({"model": {}, "vocab": {}, "opt": opt, "optim": None}, path)
        return str(path)

    return checkpoint


def test_resume_refuses_this_runs_part(refused: Refused, checkpoint: Callable[..., str]) -> None:
    stock = ("-encoder_type", "brnn", "-decoder_type", "rnn")  # not what counts
    error = refused("-train_from", checkpoint(), *stock, "-generator_function", "sparsemax")
    assert "error: generator_function sparsemax does not work here" in error


def test_resume_refuses_the_checkpoints_part(
    refused: Refused, checkpoint: Callable[..., str]
) -> None:
    error = refused("-train_from", checkpoint(lambda_align=0.5))
    assert "error: lambda_align 0.5 does not work here" in error


def test_resume_ignores_what_the_checkpoint_overrules(
    parse: Parse, checkpoint: Callable[..., str]
) -> None:
    parse("-train_from", checkpoint(), "-model_task", "lm")


def test_resume_of_a_stock_checkpoint_needs_override_opts(
    parse: Parse, refused: Refused, checkpoint: Callable[..., str]
) -> None:
    path = checkpoint(encoder_type="brnn", decoder_type="rnn")
    error = refused("-train_from", path)
    assert (
        "\n  encoder_type sd_brnn would be ignored: the checkpoint was trained with brnn" in error
    )
    assert "\n  decoder_type sd_rnn would be ignored: the checkpoint was trained with rnn" in error
    assert error.count("Add --override_opts") == 2
    parse("-train_from", path, "-override_opts")


def test_options_of_ours_that_no_part_of_a_resumed_model_reads(
    parse: Parse, refused: Refused, checkpoint: Callable[..., str]
) -> None:
    stock = "-encoder_type", "brnn", "-decoder_type", "rnn"
    resume = *stock, "-train_from", checkpoint(encoder_type="brnn", decoder_type="rnn")
    error = refused(*resume, "-sd_output_dropout", "0.4")
    assert "error: sd_output_dropout 0.4 would be ignored with encoder_type brnn and dec" in error
    parse(*resume)


def test_override_opts_makes_this_run_count(
    refused: Refused, checkpoint: Callable[..., str]
) -> None:
    error = refused("-train_from", checkpoint(), "-override_opts", "-rnn_type", "SRU")
    assert "\n  rnn_type SRU does not work here" in error


@pytest.mark.parametrize(
    ("asked", "there", "text"),
    [
        ("-rnn_type GRU", {}, "rnn_type GRU is not the checkpoint's: set rnn_type: LSTM"),
        (
            "-rnn_type LSTM",
            {"rnn_type": "GRU"},
            "rnn_type LSTM is not the checkpoint's: set rnn_ty",
        ),
        ("-hidden_size 100", {}, "hidden_size 100 is not the checkpoint's: set hidden_size: 500"),
        (
            "-tgt_word_vec_size 100",
            {},
            "word_vec_size 500 and 100 is not the checkpoint's: set word_vec_size: 500",
        ),
        (
            "-encoder_type sd_rnn",
            {},
            "encoder_type sd_rnn is not the checkpoint's, which reads in other directions: set "
            "encoder_type: sd_brnn",
        ),
        (
            "-encoder_type rnn -decoder_type rnn",
            {"encoder_type": "sd_brnn"},
            "encoder_type rnn is not the checkpoint's, which reads in other directions: set "
            "encoder_type: brnn",
        ),
        (
            "-layers 1",
            {"enc_layers": 3},
            "layers 1 is not the checkpoint's: set layers: -1, enc_layers: 3, dec_layers: 2",
        ),
        ("-input_feed 0", {}, "input_feed 0 is not the checkpoint's: set input_feed: 1"),
        ("-bridge", {}, "bridge True is not the checkpoint's: set bridge: false"),
        (
            "-global_attention mlp",
            {},
            "global_attention mlp is not the checkpoint's: set global_attention: general",
        ),
        ("-context_gate both", {}, "context_gate both is not the checkpoint's: remove context_ga"),
        (
            "-coverage_attn",
            {},
            "coverage_attn True is not the checkpoint's: set coverage_attn: false",
        ),
    ],
    ids=str,
)
def test_override_opts_is_of_the_checkpoints_shapes(
    parse: Parse, refused: Refused, checkpoint: Callable[..., str], asked: str,
    there: dict[str, object], text: str,
) -> None:  # fmt: skip
    """Of weights that are too large, stock would take a corner, without a word."""
    types = {"encoder_type": "brnn", "decoder_type": "rnn"}
    resume = "-train_from", checkpoint(**{**types, **there})
    error = refused(*resume, "-override_opts", *asked.split())
    assert text in error
    parse(*resume, "-override_opts", yaml=error.partition(": set ")[2].replace(", ", "\n"))


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("-context_gate both", {"context_gate": "source"}),
        ("-global_attention_function sparsemax", {}),
        ("-input_feed 0 -update_vocab -reset_optim all", {}),  # stock draws what is lacking
        ("-global_attention mlp -decoder_type transformer", {"decoder_type": "transformer"}),
    ],
    ids=str,
)
def test_override_opts_changes_what_leaves_the_weights(
    parse: Parse, checkpoint: Callable[..., str], asked: str, there: dict[str, object]
) -> None:
    parse("-train_from", checkpoint(**there), "-override_opts", *asked.split())


@pytest.mark.parametrize(
    ("asked", "there", "text"),
    [
        ("-copy_attn", {}, "copy_attn True is not the checkpoint's: set copy_attn: false"),
        ("", {"copy_attn": True}, "copy_attn False is not the checkpoint's: set copy_attn: true"),
        (
            "-coverage_attn -lambda_coverage 1",
            {},
            "lambda_coverage 1.0 needs coverage_attn, which the checkpoint's model does not have: "
            "set lambda_coverage: 0",
        ),
    ],
    ids=str,
)
def test_a_resumed_run_asks_for_no_loss_that_the_model_cannot_give(
    parse: Parse, refused: Refused, checkpoint: Callable[..., str], asked: str,
    there: dict[str, object], text: str,
) -> None:  # fmt: skip
    resume = "-train_from", checkpoint(**there)
    error = refused(*resume, *asked.split())
    assert text in error
    parse(*resume, yaml=error.partition(": set ")[2])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no such file"),
        (b"", "not readable as a checkpoint"),
        (b"PK\x03\x04 and no more", "not readable as a checkpoint"),
    ],
    ids=["missing", "empty", "damaged"],
)
def test_resume_of_no_checkpoint(
    parse: Parse, refused: Refused, tmp_path: Path, content: bytes | None, text: str
) -> None:
    path = tmp_path / "no.pt"
    if content is not None:
        path.write_bytes(content)
    assert f"error: train_from {path}: {text}" in refused("-train_from", str(path))
    assert f"train_from {path}: {text}" in refused("-train_from", str(path), "-override_opts")
    # With stock types it is stock's to say.
    parse("-train_from", str(path), "-encoder_type", "brnn", "-decoder_type", "rnn")


# Translation.


@pytest.mark.parametrize(
    ("asked", "input_feed", "text"),
    [
        ({"report_align": True}, 0, "report_align does not work with decoder_type sd_rnn"),
        ({"report_align": True, "gold_align": True}, 1, "2 faults in the options"),
        ({"align_debug": True}, 1, "align_debug does not work with decoder_type sd_rnn"),
        ({"replace_unk": True}, 1, None),
        ({}, 1, None),
    ],
)
def test_translation(
    checkpoint: Callable[..., str], asked: dict[str, object], input_feed: int, text: str | None
) -> None:
    path = checkpoint(input_feed=input_feed)
    if text is None:
        check_translation(Namespace(**asked), path)
    else:
        with pytest.raises(UnsupportedOptionsError, match=text):
            check_translation(Namespace(**asked), path)


def test_translation_by_a_stock_decoder(checkpoint: Callable[..., str]) -> None:
    check_translation(Namespace(report_align=True), checkpoint(decoder_type="transformer"))
