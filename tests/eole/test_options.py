"""The options in Eole's configuration, and what is refused: without Eole."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from opennmt_sd.eole.options import complete_options, move_options, options_of
from opennmt_sd.eole.refusals import check_training, training_faults
from opennmt_sd.seq2seq.options import DEFAULTS
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError


def test_options_go_where_eole_keeps_what_it_does_not_know() -> None:
    data = {
        "model": {"layers": 2, "sd_space": "structured", "sd_output_dropout": 0.2},
        "scorer_configs": {"comet": {"gpus": 1}, "opennmt_sd": {"sd_time": "fixed",
                                                               "sd_output_dropout": 0.5}},
    }  # fmt: skip
    given = copy.deepcopy(data["model"])
    model = data["model"]
    assert move_options(data) == []
    assert data["model"] == {"layers": 2}
    assert data["scorer_configs"] == {
        "comet": {"gpus": 1},
        "opennmt_sd": {"sd_time": "fixed", "sd_space": "structured", "sd_output_dropout": 0.2},
    }
    assert model == given, "what a caller holds stays as it was"
    assert options_of(SimpleNamespace(**data)) == data["scorer_configs"]["opennmt_sd"]


def test_what_came_later_means_in_a_checkpoint_what_it_meant() -> None:
    def config(**options: Any) -> SimpleNamespace:
        return SimpleNamespace(scorer_configs={"opennmt_sd": {"sd_space": "structured", **options}})

    today = {"sd_count": "exact", "sd_output_sets": DEFAULTS["sd_output_sets"]}
    then = {"sd_count": "bernoulli", "sd_output_sets": "by_step"}
    for before, want in ((None, today), ({"sd_space": "structured"}, then), ({}, then)):
        new = config()
        complete_options(new, before, {})
        assert options_of(new) == {"sd_space": "structured", **want}
    for chosen in (today, then, {**then, "sd_count": "exact"}):
        new = config(**chosen)
        complete_options(new, {"sd_space": "structured"}, chosen)
        assert options_of(new) == {"sd_space": "structured", **chosen}
    masks = config(sd_space="random")
    complete_options(masks, None, {})
    assert options_of(masks)["sd_count"] == "bernoulli"
    stock = SimpleNamespace(scorer_configs={})
    complete_options(stock, None, {})
    assert options_of(stock) is None


@pytest.mark.parametrize(
    ("before", "asked", "count"),
    [
        ({"sd_space": "structured", "sd_count": "exact"}, {"sd_space": "random"}, "bernoulli"),
        ({"sd_space": "random", "sd_count": "bernoulli"}, {"sd_space": "structured"}, "exact"),
        ({"sd_space": "random"}, {"sd_space": "structured"}, "exact"),
        ({"sd_count": "exact"}, {"sd_space": "random"}, "bernoulli"),
        ({"sd_space": "structured", "sd_count": "bernoulli"}, {"sd_space": "structured"},
         "bernoulli"),
        ({"sd_space": "structured"}, {"sd_space": "structured", "sd_count": None}, "exact"),
        ({"sd_space": "random", "sd_count": "bernoulli"},
         {"sd_space": "structured", "sd_count": "bernoulli"}, "bernoulli"),
        ({"sd_space": "structured", "sd_count": "exact"},
         {"sd_space": "random", "sd_count": "exact"}, "exact"),
    ],
)  # fmt: skip
def test_another_space_has_its_own_count(
    before: dict[str, Any], asked: dict[str, Any], count: str
) -> None:
    """Where this run names none; one that it names is its own, and judged as any."""
    new = SimpleNamespace(scorer_configs={"opennmt_sd": {**before, **asked}})
    complete_options(new, before, asked)
    assert options_of(new)["sd_count"] == count


@pytest.mark.parametrize("model", [{"layers": 2}, {}, None])
def test_without_options_nothing_changes(model: Any) -> None:
    data = {"model": model, "training": {"dropout": [0.3]}}
    assert move_options(data) == []
    assert data == {"model": model, "training": {"dropout": [0.3]}}
    assert options_of(SimpleNamespace(scorer_configs={"comet": {}})) is None
    assert options_of(SimpleNamespace(scorer_configs=None)) is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"sd_space": "structured"}, "sd_space stands at the top: move it directly under model"),
        (
            {"training": {"sd_recurrent_dropout": 0.3}},
            "sd_recurrent_dropout stands under training: move it directly under model",
        ),
        (
            {"model": {"encoder": {"sd_encoder_dropout": 0.3}}},
            "sd_encoder_dropout stands under model.encoder: move it directly under model",
        ),
        ({"model": {"sd_rec": 0.3}}, "sd_rec is no option: did you mean sd_recurrent_dropout?"),
        ({"model": {"SD-space": "random"}}, "SD-space is no option: did you mean sd_space?"),
        (
            {"model": {"encoder": {"encoder_type": "sd_brnn"}}},
            "encoder_type sd_brnn is OpenNMT-py's: in Eole set encoder_type: brnn, and sd_space: "
            "structured under model",
        ),
        (
            {"model": {"decoder": {"decoder_type": "sd_rnn"}}},
            "decoder_type sd_rnn is OpenNMT-py's: in Eole set decoder_type: rnn, and sd_space: "
            "structured under model",
        ),
        (
            {"model": {"architecture": "rnn", "encoder": {"encoder_type": "brnn"},
                       "sd_space": "structured"}},
            "encoder_type brnn would become rnn with architecture rnn, which sets it: remove "
            "architecture, and set decoder: {decoder_type: rnn}",
        ),
    ],
)  # fmt: skip
def test_where_they_stand_and_how_they_are_written(data: dict[str, Any], fault: str) -> None:
    assert move_options(data) == [fault]


def test_a_corpus_may_be_called_what_it_likes() -> None:
    assert move_options({"data": {"sd_corpus": {"path_src": "x"}}}) == []


def test_architecture_rnn_alone_is_fine() -> None:
    assert move_options({"model": {"architecture": "rnn", "sd_space": "structured"}}) == []


# ---------------------------------------------------------------- refusals


def config(
    options: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **model: Any,
) -> SimpleNamespace:
    """What a refusal reads of a configuration that works, with something else in it."""
    sizes = {"layers": 2, "hidden_size": 12, "rnn_type": "LSTM"}
    encoder = {"encoder_type": "brnn", "bridge": False, **sizes, **(encoder or {})}
    decoder = {"decoder_type": "rnn", "coverage_attn": False, "context_gate": None,
               "global_attention_function": "softmax",
               "global_attention": "general", **sizes, **(decoder or {})}  # fmt: skip
    training = {"dropout": [0.3], "optim": "adam", "torch_compile": False, "rl_algorithm": None,
                "parallel_mode": "data_parallel", "world_size": 1, "train_from": None,
                "reset_optim": "none", "update_vocab": False, **(training or {})}  # fmt: skip
    model = {"input_feed": 1, "generator_function": "softmax", "generator_bias": True,
             "share_embeddings": False, "share_decoder_embeddings": False, **model}  # fmt: skip
    return SimpleNamespace(
        scorer_configs={"opennmt_sd": {"sd_space": "structured", **(options or {})}},
        model=SimpleNamespace(
            encoder=SimpleNamespace(**encoder), decoder=SimpleNamespace(**decoder), **model
        ),
        training=SimpleNamespace(**training),
    )


def test_what_works_is_not_refused() -> None:
    check_training(config())
    check_training(config(encoder={"encoder_type": "rnn", "bridge": True}))
    check_training(config(encoder={"layers": 3}))
    check_training(config(encoder={"rnn_type": "LSTM"}, decoder={"rnn_type": "GRU"}))
    check_training(config(decoder={"coverage_attn": True, "context_gate": "both"}))
    check_training(config(training={"reset_optim": "keep_states"}))  # which nothing reads
    update = {"train_from": "step_2", "update_vocab": True, "reset_optim": "states"}
    check_training(config(training=update))
    check_training(config(training=update, share_embeddings=True, share_decoder_embeddings=True))


def test_without_options_of_ours_all_is_eoles_own() -> None:
    bad = config(encoder={"encoder_type": "transformer"})
    bad.scorer_configs = {}
    assert training_faults(bad) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"options": {"sd_time": "never"}}, "sd_time 'never' is unknown: use random or fixed"),
        ({"options": {"sd_rec": 0.1}}, "sd_rec is no option: did you mean sd_recurrent_dropout?"),
        (
            {"options": {"sd_output_dropout": 1.0}},
            "sd_output_dropout 1.0 is outside [0, 1): ",
        ),
        ({"training": {"dropout": [0.3, 1.5]}}, "dropout 1.5 is outside [0, 1): "),
        (
            {"encoder": {"encoder_type": "transformer"}},
            "encoder_type transformer has no structured dropout: set encoder: {encoder_type: brnn} "
            "(or rnn), or remove the sd_* options",
        ),
        (
            {"decoder": {"decoder_type": "transformer"}},
            "decoder_type transformer has no structured dropout: set decoder: {decoder_type: rnn}, "
            "or remove the sd_* options",
        ),
        (
            {"encoder": {"hidden_size": 11}},
            "hidden_size 11 must be even with encoder_type brnn: each direction has half of it",
        ),
        (
            {"encoder": {"bridge": True}},
            "bridge: Eole builds it for one direction, and fails with encoder_type brnn: remove "
            "bridge, or set encoder_type: rnn",
        ),
        (
            {"encoder": {"rnn_type": "GRU"}},
            "rnn_type GRU of the encoder gives no cell state for rnn_type LSTM of the decoder: "
            "give both the same",
        ),
        (
            {"decoder": {"layers": 3}},
            "layers 2 of the encoder and 3 of the decoder: the decoder's layers start from the "
            "encoder's, one from each: give both the same number",
        ),
        (
            {"encoder": {"layers": 3}, "input_feed": 0},
            "layers 3 of the encoder and 2 of the decoder: the decoder's layers start from the "
            "encoder's, one from each: give both the same number",
        ),
        (
            {"decoder": {"coverage_attn": True}, "input_feed": 0},
            "coverage_attn needs input_feed: 1 (it is 0)",
        ),
        (
            {"decoder": {"context_gate": "both"}, "input_feed": 0},
            "context_gate needs input_feed: 1 (it is 0)",
        ),
        (
            {"decoder": {"coverage_attn": True, "global_attention": None}},
            "coverage_attn needs attention: set global_attention: general",
        ),
        (
            {"generator_function": "sparsemax"},
            "generator_function sparsemax: Eole fails on it on the first batch: set "
            "generator_function: softmax",
        ),
        (
            {"decoder": {"global_attention_function": "sparsemax"}},
            "global_attention_function sparsemax: Eole fails on it on the first batch: set "
            "global_attention_function: softmax",
        ),
        (
            {"training": {"optim": "sparseadam"}},
            "optim sparseadam: Eole fails on it in the first update of such a model: set optim: "
            "adam",
        ),
        (
            {"training": {"torch_compile": True}},
            "torch_compile is not for structured dropout: remove it",
        ),
        (
            {"training": {"rl_algorithm": "reinforce"}},
            "rl_algorithm reinforce is not for structured dropout: resume the model for it without "
            "this plugin (OPENNMT_SD_AUTOLOAD=0)",
        ),
        (
            {"training": {"parallel_mode": "tensor_parallel", "world_size": 2}},
            "parallel_mode tensor_parallel splits transformers alone: set parallel_mode: "
            "data_parallel",
        ),
    ],
)
def test_refusals(change: dict[str, Any], fault: str) -> None:
    faults = training_faults(config(**change))
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_language_model_is_refused_without_its_encoder() -> None:
    lm = config()
    lm.model.encoder = None
    assert training_faults(lm)[0].startswith("encoder_type None has no structured dropout")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UnsupportedOptionsError) as caught:
        check_training(config(options={"sd_space": "odd"}, training={"torch_compile": True}))
    assert str(caught.value) == (
        "2 faults in the options:\n"
        "  sd_space 'odd' is unknown: use structured or random\n"
        "  torch_compile is not for structured dropout: remove it"
    )
