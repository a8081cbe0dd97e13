"""``eole train`` and ``eole predict``: a training, and its checkpoints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("eole", reason="Eole is not installed: scripts/check_eole.sh runs these tests")

from opennmt_sd.eole.compat import SEEN
from opennmt_sd.ops import calibration
from opennmt_sd.ops.calibration import choices
from opennmt_sd.seq2seq.wrapping import fingerprint

ROOT = Path(__file__).parents[2]
OURS = {"sd_space": "structured"}
NOTHING = {"dropout": [0.0]}


@pytest.mark.parametrize("options", [{}, {"input_feed": 0}, {"rnn_type": "GRU"}], ids=str)
def test_where_nothing_is_dropped_it_learns_what_stock_learns(
    commands: Any, options: dict[str, Any]
) -> None:
    stock = commands.train("stock", commands.model(options), train_steps=3, **NOTHING)
    ours = commands.train("ours", commands.model({**options, **OURS}), train_steps=3, **NOTHING)
    assert stock.parts == ("eole",) * 4
    assert ours.parts == ("opennmt_sd", "opennmt_sd", "opennmt_sd", "eole")
    assert ours.words == stock.words
    assert ours.losses == pytest.approx(stock.losses, rel=1e-4)
    for name, weight in stock.weights(3).items():
        torch.testing.assert_close(ours.weights(3)[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "training",
    [
        {"batch_type": "tokens", "batch_size": 60, "normalization": "tokens"},
        {"average_decay": 0.1},
        {"accum_count": [2], "label_smoothing": 0.1},
        {"lora_layers": ["linear_in", "generator"], "lora_rank": 2},
    ],
    ids=lambda training: next(iter(training)),
)
def test_a_run_is_stocks_but_for_what_is_dropped(commands: Any, training: dict[str, Any]) -> None:
    stock = commands.train("stock", commands.model({}), **training, **NOTHING)
    ours = commands.train("ours", commands.model(OURS), **training, **NOTHING)
    assert ours.losses == pytest.approx(stock.losses, rel=1e-4)
    for name, weight in stock.weights(2).items():
        torch.testing.assert_close(ours.weights(2)[name], weight, rtol=1e-3, atol=1e-4)


def test_the_log_says_what_is_dropped(commands: Any) -> None:
    run = commands.train("ours", commands.model({**OURS, "sd_recurrent_dropout": 0.2}))
    (line,) = [line for line in run.log if line.startswith("opennmt_sd:")]
    assert re.fullmatch(
        r"opennmt_sd: dropout src_embedding 0\.3 structured/random/exact, .*recurrent 0\.2 "
        r"structured/random/exact; engine (cpu|portable)",
        line,
    )


def test_one_seed_is_one_run(commands: Any) -> None:
    first, again = (commands.train(name, commands.model(OURS)) for name in ("first", "again"))
    assert first.losses == again.losses
    other = commands.train("other", commands.model({**OURS, "sd_output_dropout": 0.0}))
    assert other.losses != first.losses


def test_a_checkpoint_is_eoles(commands: Any) -> None:
    """Without the plugin it translates to the same bytes, and goes on."""
    run = commands.train("ours", commands.model({**OURS, "sd_time": "fixed"}))
    config = json.loads((run.step(2) / "config.json").read_text())
    assert "sd_" not in json.dumps(config["model"])
    kept = {"sd_space": "structured", "sd_time": "fixed", "sd_count": "exact",
            "sd_output_sets": "staggered"}  # fmt: skip
    assert config["scorer_configs"] == {"opennmt_sd": kept}
    stock = commands.train("stock", commands.model({}), **NOTHING)
    assert run.weights(2).keys() == stock.weights(2).keys()
    source, output = commands.corpus / "test.src", commands.folder / "without"
    resumed = commands.write("resumed", commands.config("resumed", None, train_steps=3,
                                                        train_from=str(run.step(2))))  # fmt: skip
    code = (
        "import sys; from eole.bin.main import main\n"
        f"sys.argv = ['eole', 'predict', '--model_path', {str(run.step(2))!r}, '--src', "
        f"{str(source)!r}, '--output', {str(output)!r}, '--beam_size', '3', '--max_length', '8']\n"
        "main()\n"
        f"sys.argv = ['eole', 'train', '--config', {str(resumed)!r}]\nmain()\n"
        "print(any(name.startswith('opennmt_sd') for name in sys.modules))"
    )
    environment = {**os.environ, "OPENNMT_SD_AUTOLOAD": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=commands.folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "False"
    assert output.read_text().splitlines() == commands.predict(run.step(2))
    # What went on without the plugin still knows what it dropped.
    again = commands.train("again", None, train_from=str(commands.folder / "resumed" / "step_3"),
                           train_steps=4)  # fmt: skip
    assert any("structured/fixed" in line for line in again.log)


def test_resume(commands: Any) -> None:
    """Options, step and schedule go on; what this run says wins, and is said."""
    schedule = {"dropout": [0.4, 0.2, 0.1], "dropout_steps": [0, 1, 3],
                "attention_dropout": [0.0, 0.0, 0.0]}  # fmt: skip
    first = commands.train(
        "first", commands.model({**OURS, "sd_recurrent_dropout": 0.3}), **schedule
    )
    assert first.rates == [0.4, 0.2]
    resumed = commands.train("resumed", None, train_from=str(first.step(2)), train_steps=4,
                             **schedule)  # fmt: skip
    assert resumed.steps == [3, 4]
    assert resumed.rates == [0.2, 0.1]
    assert resumed.parts[:3] == ("opennmt_sd",) * 3
    assert any("step 3 resumes the schedule of dropout: 0.4 after step 0, 0.2 after step 1, 0.1 "
               "after step 3" in line for line in resumed.log)  # fmt: skip
    assert any("recurrent 0.3 structured/random" in line for line in resumed.log)
    changed = commands.train("changed", {"sd_recurrent_dropout": 0.5, "sd_time": "fixed"},
                             train_from=str(first.step(2)), train_steps=3,
                             **schedule)  # fmt: skip
    assert any("recurrent 0.5 structured/fixed" in line for line in changed.log)
    assert any("Option: sd_recurrent_dropout, value: 0.5, overriding model: 0.3" in line
               for line in changed.log)  # fmt: skip
    # The space's own count comes with it, both ways.
    masks = commands.train("masks", {"sd_space": "random"}, train_from=str(first.step(2)),
                           train_steps=3, **schedule)  # fmt: skip
    assert any("recurrent 0.3 random/random; " in line for line in masks.log)
    sets = commands.train("sets", {"sd_space": "structured"}, train_from=str(masks.step(3)),
                          train_steps=4, **schedule)  # fmt: skip
    assert any("recurrent 0.3 structured/random/exact; " in line for line in sets.log)


def test_what_was_measured_travels(commands: Any, no_choices: None) -> None:
    """In the checkpoint's configuration; a resume takes it from there."""
    made = {"gathered LSTM, T 4-7; a card (9.0)": True, "recurrence": False}
    before = commands.train("before", commands.model(OURS))
    calibration.take(made)
    run = commands.train("run", commands.model(OURS))
    held = [json.loads((r.step(2) / "config.json").read_text()) for r in (before, run)]
    assert held[1]["scorer_configs"].pop("opennmt_sd_calibration") == made
    assert held[0]["scorer_configs"] == held[1]["scorer_configs"]
    choices.forget()
    commands.train("again", None, train_from=str(run.step(2)), train_steps=3)
    assert calibration.in_force() == made
    choices.forget()
    commands.train("older", None, train_from=str(before.step(2)), train_steps=3)
    assert calibration.in_force() == {}
    assert commands.predict(run.step(2))  # by stock, which knows nothing of it


def test_a_resumed_optimizer_goes_on(commands: Any) -> None:
    """Two updates and two more are four, where nothing depends on the place in the data."""
    lines = "w1 w2 w3\n" * 12
    for side in ("src", "tgt"):
        (commands.folder / f"train.{side}").write_text(lines)
        (commands.folder / f"valid.{side}").write_text(lines)
        (commands.folder / f"vocab.{side}").write_text((commands.corpus / "vocab.src").read_text())
    own = commands.on(commands.folder)
    whole = own.train("whole", commands.model(OURS), train_steps=4, **NOTHING)
    resumed = own.train("resumed", None, train_from=str(whole.step(2)), train_steps=4, **NOTHING)
    for name, weight in whole.weights(4).items():
        assert torch.equal(resumed.weights(4)[name], weight), name


def test_a_stock_checkpoint_goes_on_with_structured_dropout(commands: Any) -> None:
    stock = commands.train("stock", commands.model({}))
    ours = commands.train("ours", OURS, train_from=str(stock.step(2)), train_steps=3)
    assert ours.parts[:3] == ("opennmt_sd",) * 3
    assert ours.steps == [3]


def test_validation_is_stocks(commands: Any) -> None:
    stock = commands.train("stock", commands.model({}), valid_steps=1, learning_rate=0.0)
    model = commands.model({**OURS, "sd_recurrent_dropout": 0.5})
    ours = commands.train("ours", model, valid_steps=1, learning_rate=0.0)
    assert len(stock.validations) == 2
    assert ours.validations == stock.validations


@pytest.mark.parametrize("where", SEEN)
def test_stock_is_as_it_was_seen(plugin: None, where: str) -> None:
    assert fingerprint(where) == SEEN[where]


@pytest.mark.parametrize("recipe", sorted((ROOT / "conf" / "eole").glob("*.yaml")), ids=str)
def test_recipes_are_read(plugin: None, recipe: Path) -> None:
    import yaml
    from eole.config.run import TrainConfig

    config = TrainConfig(**yaml.safe_load(recipe.read_text()))
    model, training = config.model, config.training
    assert (model.encoder.encoder_type, model.encoder.rnn_type) == ("brnn", "LSTM")
    assert {model.encoder.hidden_size, model.decoder.hidden_size} == {256}
    assert {model.encoder.src_word_vec_size, model.decoder.tgt_word_vec_size} == {256}
    assert model.decoder.bidirectional_encoder
    assert config.scorer_configs == {"opennmt_sd": {"sd_space": "structured"}}
    head = recipe.read_text().split("\nmodel:")[0]
    assert f"eole train --config conf/eole/{recipe.name}\n" in head
    assert f"--model_path {training.model_path}/step_{training.train_steps} " in head
    assert training.train_steps % training.save_checkpoint_steps == 0


# ---------------------------------------------------------------- the benchmark


def test_the_benchmark_measures_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from opennmt_sd import ops
    from opennmt_sd.benchmark import updates
    from opennmt_sd.benchmark.eole_translator import Work, batches
    from opennmt_sd.benchmark.translation import PHASES, Case

    if "cpu" not in ops.engine_for():
        pytest.skip("the benchmark measures the native module")
    monkeypatch.setattr(updates, "peak_mb", lambda *_: 1.0)
    small = {"hidden": 16, "vocabulary": 50, "sentences": 4, "batches": 2}
    cases = [Case("tiny NR+RH", p=0.5, recurrent=True, **small),
             Case("tiny no-input-feed", p=0.3, input_feed=False, **small)]  # fmt: skip
    rows = list(updates.Suite("eole", cases, Work).run(1))
    assert [row.phase for row in rows] == ["step", *PHASES] * 2
    assert all(0 < row.max_rel_err <= updates.TOLERANCE for row in rows)
    words = sum(int((batch["tgt"][:, 1:] != 1).sum()) for batch in batches(cases[0])) / 2
    assert cases[0].words == words
    stock, ours = (Work(cases[0], ours=ours, p=0.5) for ours in (False, True))
    assert type(stock.model.encoder).__module__.startswith("eole.")
    assert type(ours.model.encoder).__module__.startswith("opennmt_sd.")
