"""``eole train`` where it cannot be: what is refused before data are read, and what stock does."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("eole", reason="Eole is not installed: scripts/check_eole.sh runs these tests")

import eole

from opennmt_sd.eole import register
from opennmt_sd.eole.compat import VERSION, UnknownVersionError
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError

OURS = {"sd_space": "structured"}


@pytest.mark.parametrize(
    ("model", "training", "fault"),
    [
        ({"sd_rec": 0.3}, {}, "sd_rec is no option: did you mean sd_recurrent_dropout?"),
        ({"sd_output_dropout": 1.5}, {}, "sd_output_dropout 1.5 is outside [0, 1)"),
        ({"generator_function": "sparsemax"}, {}, "generator_function sparsemax: Eole fails on"),
        ({"input_feed": 0, "context_gate": "both"}, {}, "context_gate needs input_feed: 1"),
        ({"bridge": True}, {}, "bridge: Eole builds it for one direction"),
        ({"rnn_type": "GRU", "encoder_type": "rnn"}, {"optim": "sparseadam"}, "optim sparseadam"),
    ],
)
def test_refused_before_data_are_read(
    commands: Any, model: dict[str, Any], training: dict[str, Any], fault: str
) -> None:
    given = commands.model({**OURS, **model})
    for file in commands.corpus.glob("*"):
        assert file.is_file()
    nowhere = commands.on(commands.folder / "nowhere")
    with pytest.raises(UnsupportedOptionsError, match=re.escape(fault)):
        nowhere.train("refused", given, **training)
    assert not (commands.folder / "refused").exists()


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"generator_function": "sparsemax"}, {}),
        ({"global_attention_function": "sparsemax"}, {}),
        ({"input_feed": 0, "context_gate": "both"}, {}),
        ({"input_feed": 0, "coverage_attn": True}, {}),
        ({"bridge": True}, {}),
        ({}, {"optim": "sparseadam"}),
    ],
)
def test_stock_fails_on_what_is_refused(
    commands: Any, model: dict[str, Any], training: dict[str, Any]
) -> None:
    with pytest.raises((AssertionError, RuntimeError, TypeError)) as caught:
        commands.train("stock", commands.model(model), **training)
    assert not isinstance(caught.value, UnsupportedOptionsError)


def test_a_transformer_with_our_options_is_refused(commands: Any) -> None:
    model = {"architecture": "transformer", "layers": 1, "hidden_size": 8, **OURS}
    text = "encoder_type transformer has no structured dropout: set encoder: {encoder_type: brnn}"
    with pytest.raises(UnsupportedOptionsError, match=re.escape(text)):
        commands.train("refused", model)


def test_a_resume_is_refused_with_the_checkpoints_model(commands: Any) -> None:
    stock = commands.train("stock", commands.model({"input_feed": 1}))
    with pytest.raises(UnsupportedOptionsError, match="torch_compile is not for"):
        commands.train("refused", OURS, train_from=str(stock.step(2)), torch_compile=True)


def test_the_command_says_it_in_a_line(commands: Any, run_python) -> None:
    """By the autoload alone, with code 2 and no traceback."""
    config = commands.write("bad", commands.config("bad", commands.model({"sd_rec": 0.3})))
    code = "import sys; from eole.bin.main import main; sys.argv[0] = 'eole'; main()"
    done = run_python("-c", code, "train", "--config", str(config), OPENNMT_SD_AUTOLOAD="1")
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1] == (
        "eole: error: sd_rec is no option: did you mean sd_recurrent_dropout?"
    )
    assert "Traceback" not in done.stderr


def test_an_eole_of_another_version_is_left_alone(
    plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eole, "__version__", "0.7.0")
    with pytest.raises(UnknownVersionError) as caught:
        register()
    assert str(caught.value) == (
        f"it knows Eole {VERSION}, and this is 0.7.0: pip install eole=={VERSION}"
    )


KEEP_STATES = (
    "reset_optim keep_states: Eole fails on it as it reads the checkpoint: set reset_optim: none, "
    "which keeps the optimizer's options too, or all, which keeps nothing of it"
)
UPDATE_VOCAB = (
    "update_vocab: Eole fails on it where the checkpoint's model has {}: remove update_vocab, or "
    "train that model anew"
)


@pytest.mark.parametrize(
    ("model", "resume", "text"),
    [
        ({}, {"reset_optim": "keep_states"}, KEEP_STATES),
        (
            {"generator_bias": False},
            {"update_vocab": True, "reset_optim": "all"},
            UPDATE_VOCAB.format("generator_bias: false"),
        ),
        (
            {"share_decoder_embeddings": True, "word_vec_size": 12},
            {"update_vocab": True, "reset_optim": "states"},
            UPDATE_VOCAB.format("share_decoder_embeddings"),
        ),
    ],
)
def test_ways_to_go_on_that_stock_fails_on_are_refused(
    commands: Any, model: dict[str, Any], resume: dict[str, Any], text: str
) -> None:
    first = commands.train("first", commands.model(model))
    given = {"train_from": str(first.step(2)), "train_steps": 3}
    with pytest.raises(KeyError):
        commands.train("stock", None, **given, **resume)
    with pytest.raises(UnsupportedOptionsError) as caught:
        commands.train("ours", OURS, **given, **resume)
    assert str(caught.value) == text
    assert commands.train("remedied", OURS, **given).steps == [3]


@pytest.mark.parametrize("reset", ["states", "all"])
def test_a_new_vocabulary(commands: Any, reset: str) -> None:
    """What a checkpoint knows of it stays; with both as it was in stock."""
    (commands.folder / "vocab").write_text("".join(f"w{i}\n" for i in range(30, -1, -1)))
    top = dict.fromkeys(("src_vocab", "tgt_vocab"), str(commands.folder / "vocab"))
    first = commands.train("first", commands.model({}), dropout=[0.0])
    given = {"train_from": str(first.step(2)), "train_steps": 4, "update_vocab": True,
             "reset_optim": reset, "dropout": [0.0], "top": top}  # fmt: skip
    stock, ours = (commands.train(f"run{len(own)}", own or None, **given) for own in ({}, OURS))
    assert ours.parts[:3] == ("opennmt_sd",) * 3
    assert ours.steps == ([3, 4] if reset == "states" else [1, 2, 3, 4])
    assert ours.losses == pytest.approx(stock.losses, rel=1e-4)
    assert ours.weights(4)["src_emb.embeddings.weight"].shape[0] > 30
