"""A schedule of dropout_steps, also when training goes on from a checkpoint."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.compat import TORCH
from opennmt_sd.onmt.checkpoint import CHOICES, allow_namespace
from opennmt_sd.ops import calibration
from opennmt_sd.seq2seq.dropout_schedule import Schedule, next_step

SCHEDULE = ("-dropout", "0.4", "0.2", "0.1", "-dropout_steps", "0", "10", "20",
            "-attention_dropout", "0", "0", "0")  # fmt: skip


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 0.4), (10, 0.4), (11, 0.2), (20, 0.2), (21, 0.1), (9999, 0.1)]
)
def test_rate_at(step: int, rate: float) -> None:
    assert Schedule((0.4, 0.2, 0.1), (0.0, 0.0, 0.0), (0, 10, 20)).rate_at(step) == rate


def test_before_the_first_step_the_first_rate_holds_as_stock_builds_it() -> None:
    assert Schedule((0.4, 0.2), (0.0, 0.0), (5, 10)).rate_at(2) == 0.4


def test_the_schedule_of_an_old_checkpoint() -> None:
    schedule = Schedule.of(Namespace(dropout=0.3))
    assert schedule == Schedule((0.3,), (0.0,), (0,))


@pytest.mark.parametrize(
    ("state", "reset", "step"),
    [
        ({"training_step": 15}, "none", 15),
        ({"training_step": 15}, "states", 15),
        ({"training_step": 15}, "keep_states", 15),
        ({"training_step": 15}, "all", 1),
        (None, "none", 1),  # released or averaged: stock starts over as well
    ],
)
def test_next_step(state: Any, reset: str, step: int) -> None:
    assert next_step({"optim": state}, Namespace(reset_optim=reset)) == step


def test_next_step_of_a_new_run() -> None:
    assert next_step(None, Namespace(reset_optim="none")) == 1


# The real build_model, as train_single calls it.


@pytest.fixture
def build(
    parse: Callable[..., Namespace], caplog: pytest.LogCaptureFixture
) -> Callable[..., tuple[Any, Namespace, str]]:
    """Train options -> the model after a resume at a step, this run's options, and the log."""
    small = ("-layers", "2", "-hidden_size", "8", "-word_vec_size", "8")

    def build(
        trained: tuple[str, ...], *args: str, step: int = 15, **more: Any
    ) -> tuple[Any, Namespace, str]:
        from onmt.constants import DefaultTokens as D
        from onmt.model_builder import build_model
        from onmt.utils.parse import ArgumentParser
        from pyonmttok import build_vocab_from_tokens

        tokens = [D.UNK, D.PAD, D.BOS, D.EOS, "a", "b"]
        vocab = build_vocab_from_tokens(tokens)
        vocabs = {"src": vocab, "tgt": vocab, "decoder_start_token": D.BOS}
        was = parse(*small, *trained)
        ArgumentParser.update_model_opts(was)
        model = build_model(was, was, vocabs, None, -1)
        state = model.state_dict()
        checkpoint = {
            "model": {k: v for k, v in state.items() if "generator" not in k},
            "generator": model.generator.state_dict(),
            "opt": was,
            "optim": {"training_step": step},
            **more,
        }
        opt = parse(*small, *args)
        ArgumentParser.update_model_opts(opt)
        model_opt = opt if opt.override_opts else copy.deepcopy(was)
        caplog.clear()
        with caplog.at_level(logging.INFO, "onmt"):
            model = build_model(model_opt, opt, vocabs, checkpoint, -1)
        log = "\n".join(m for m in caplog.messages if m.startswith("opennmt_sd: "))
        return model, opt, log

    return build


def rates(model: Any) -> list[float]:
    plans = (model.encoder.plan, model.decoder.plan)
    return [p.pattern(place).p for p in plans for place in ("encoder", "output", "recurrent")]


def test_a_resumed_run_goes_on_with_the_checkpoints_schedule(build: Callable[..., Any]) -> None:
    model, opt, log = build((*SCHEDULE, "-sd_output_dropout", "0.35"))
    assert rates(model) == [0.2, 0.35, 0.0] * 2
    # The trainer reads these.
    assert opt.dropout == [0.4, 0.2, 0.1]
    assert opt.dropout_steps == [0, 10, 20]
    assert opt.attention_dropout == [0.0, 0.0, 0.0]
    lines = log.splitlines()
    assert lines[0] == (
        "opennmt_sd: kept from the checkpoint: sd_output_dropout 0.35 (this run: None), "
        "dropout 0.4 after step 0, 0.2 after step 10, 0.1 after step 20 (this run: 0.3 after "
        "step 0); --override_opts would take this run's"
    )
    assert lines[1] == (
        "opennmt_sd: step 15 resumes the schedule of dropout: "
        "0.4 after step 0, 0.2 after step 10, 0.1 after step 20"
    )
    assert "encoder 0.2 structured/random/exact, " in lines[2]
    assert "output 0.35 structured/random/exact/staggered, " in lines[2]
    assert len(lines) == 3


def test_attention_rates_follow_the_schedule_too(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transformer decoder behind our encoder reads them; no decoder of ours does."""
    from onmt.models import NMTModel

    given = []
    update = NMTModel.update_dropout
    monkeypatch.setattr(
        NMTModel, "update_dropout", lambda self, *rates: given.append(rates) or update(self, *rates)
    )
    rates = ("-dropout", "0.3", "0.1", "-dropout_steps", "0", "2")
    *_, log = build((*rates, "-attention_dropout", "0.4", "0"), *rates,
                    "-attention_dropout", "0.2", "0.2")  # fmt: skip
    assert given == [(0.1, 0.0)]
    assert "kept" not in log


def test_sets_of_an_output_are_named_where_they_have_a_meaning(build: Callable[..., Any]) -> None:
    older = ("-sd_output_sets", "by_step")  # what a checkpoint from before the option is read as
    *_, log = build((*older, "-dropout", "0.3"))
    assert "kept from the checkpoint: sd_output_sets by_step (this run: staggered); " in log
    for without in (("-sd_space", "random"), ("-sd_time", "fixed")):
        *_, log = build((*older, *without, "-dropout", "0.3"), *without)
        assert "kept" not in log


def test_what_a_run_of_stocks_types_did_not_ask_for_is_not_named(build: Callable[..., Any]) -> None:
    """Of an older checkpoint's options: it drops by none of them."""
    older = ("-sd_count", "bernoulli", "-sd_output_sets", "by_step", "-dropout", "0.3")
    *_, log = build(older, "-encoder_type", "brnn", "-decoder_type", "rnn", "-dropout", "0.3")
    assert "kept from the checkpoint: encoder_type sd_brnn (this run: brnn), " in log
    assert "sd_count" not in log
    assert "sd_output_sets" not in log
    stock = ("-encoder_type", "brnn", "-decoder_type", "rnn", "-dropout", "0.3")
    *_, log = build(("-dropout", "0.3"), *stock, "-sd_count", "bernoulli")
    assert "sd_count exact (this run: bernoulli)" in log, "what it did ask for is"
    *_, log = build(older, "-decoder_type", "rnn", "-dropout", "0.3")
    assert "sd_count bernoulli (this run: exact); " in log
    assert "sd_output_sets" not in log


def test_override_opts_takes_this_runs_schedule(build: Callable[..., Any]) -> None:
    args = ("-override_opts", "-dropout", "0.5", "0.3", "-dropout_steps", "0", "12",
            "-attention_dropout", "0", "0")  # fmt: skip
    model, opt, _ = build(SCHEDULE, *args)
    assert rates(model) == [0.3, 0.3, 0.0] * 2
    assert opt.dropout == [0.5, 0.3]


def test_reset_optim_all_starts_the_schedule_over(build: Callable[..., Any]) -> None:
    model, opt, _ = build(SCHEDULE, "-reset_optim", "all")
    assert rates(model) == [0.4, 0.4, 0.0] * 2
    assert opt.dropout_steps == [0, 10, 20]


def test_nothing_to_resume_is_one_line(build: Callable[..., Any]) -> None:
    _, _, log = build(())
    assert log.startswith("opennmt_sd: dropout src_embedding 0.3 structured/random/exact, ")
    assert len(log.splitlines()) == 1
    assert "; engine " in log


@pytest.mark.parametrize("made", [{"recurrence": True}, {}], ids=["measured", "older"])
def test_what_was_measured_is_taken_from_the_checkpoint(
    build: Callable[..., Any], no_choices: None, made: dict[str, bool]
) -> None:
    build((), **{CHOICES: made} if made else {})
    assert calibration.in_force() == made


def test_a_checkpoint_holds_what_was_measured(
    build: Callable[..., Any], no_choices: None, tmp_path: Path
) -> None:
    """As stock's saver writes it; what stock reads of it is what stock wrote."""
    from onmt.models import model_saver

    content = {"model": {"a": torch.ones(2)}, "opt": Namespace(), "vocab": {}}
    allow_namespace()
    model_saver.torch.save(content, tmp_path / "without.pt")
    calibration.take({"recurrence": True})
    model_saver.torch.save(content, tmp_path / "with.pt")
    without, held = (
        torch.load(tmp_path / f"{name}.pt", weights_only=TORCH >= (2, 6))
        for name in ("without", "with")
    )
    assert held.pop(CHOICES) == {"recurrence": True}
    assert list(held) == list(without) == list(content)


@pytest.mark.parametrize(("now", "told"), [((), "medium"), (("highest",), "highest")], ids=str)
def test_the_precision_of_products(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, now: tuple[str, ...], told: str
) -> None:
    """Torch is told: what this run says, else what the checkpoint that goes on was trained with."""
    calls: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", calls.append)
    args = ("-sd_matmul_precision", *now) if now else ()
    _, opt, log = build(("-sd_matmul_precision", "medium"), *args)
    assert calls == ["medium", told]
    assert opt.sd_matmul_precision == told
    assert "kept from" not in log
    calls.clear()
    build(())
    assert calls == [], "it stays as it is"


RESUMED = [
    (("-layers", "3"), (), "layers 2 (this run: 3)"),
    (("-layers", "2"), ("-layers", "3"), "layers 3 (this run: 2)"),  # as by default
    (("-layers", "-1", "-enc_layers", "3", "-dec_layers", "2"), (), "layers 2 (this run: 3 and 2)"),
    (("-hidden_size", "16"), (), "hidden_size 8 (this run: 16)"),
    (("-input_feed", "0", "-bridge"), (),
     "bridge False (this run: True), input_feed 1 (this run: 0)"),
    (("-input_feed", "1"), ("-input_feed", "0"), "input_feed 0 (this run: 1)"),
    ((), ("-rnn_type", "GRU"), "rnn_type GRU (this run: LSTM)"),
    (("-coverage_attn", "-share_decoder_embeddings"), (),
     "coverage_attn False (this run: True), share_decoder_embeddings False (this run: True)"),
    (("-encoder_type", "sd_rnn"), (), "encoder_type sd_brnn (this run: sd_rnn)"),
    (("-decoder_type", "transformer"), (), "decoder_type sd_rnn (this run: transformer)"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "trained", "told"), RESUMED, ids=str)
def test_a_resumed_run_is_told_of_weights_that_it_does_not_get(
    build: Callable[..., Any], asked: tuple[str, ...], trained: tuple[str, ...], told: str
) -> None:
    *_, log = build((*SCHEDULE, *trained), *SCHEDULE, *asked)
    assert log.splitlines()[0] == (
        f"opennmt_sd: the checkpoint's weights are of {told}; another model begins without "
        "train_from"
    )
    assert "kept" not in log


def test_a_resumed_run_is_told_of_nothing_that_its_model_does_not_read(
    build: Callable[..., Any],
) -> None:
    types = ("-decoder_type", "transformer", "-heads", "4")
    *_, log = build(
        (*SCHEDULE, *types), *SCHEDULE, *types, "-input_feed", "0", "-context_gate", "both"
    )
    assert "weights" not in log
    assert "kept" not in log
    mean = ("-encoder_type", "mean")
    sizes = ("-layers", "-1", "-enc_layers", "3", "-dec_layers", "2")
    *_, log = build(mean, *mean, *sizes, "-bridge")
    assert "weights" not in log


def test_a_resumed_run_that_is_silent_about_sizes_is_told_nothing(
    build: Callable[..., Any],
) -> None:
    unset = ("-layers", "-1", "-hidden_size", "-1", "-word_vec_size", "-1")
    *_, log = build(SCHEDULE, *SCHEDULE, *unset)
    assert "weights" not in log
    layers = ("-layers", "-1", "-enc_layers", "3", "-dec_layers", "3")
    *_, log = build((*SCHEDULE, *layers), *SCHEDULE, "-layers", "3")
    assert "weights" not in log


def test_override_opts_is_advised_where_it_works(build: Callable[..., Any]) -> None:
    trained = (*SCHEDULE, "-context_gate", "source")
    asked = (*SCHEDULE, "-context_gate", "both", "-sd_time", "fixed")
    *_, log = build(trained, *asked)
    kept = (
        "kept from the checkpoint: context_gate source (this run: both), "
        "sd_time random (this run: fixed); "
    )
    assert f"{kept}--override_opts would take this run's" in log
    *_, log = build(trained, *asked, "-layers", "3")
    assert f"{kept}of a model with its weights --override_opts would take this run's" in log
