"""Values and texts that a language model cannot be trained with: all told at once, in our words."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")


def test_all_faults_at_once(lm, tmp_path: Path) -> None:
    done = lm(
        "data=text", "data.train=text/train.txt", "data.valid=text/nowhere.txt",
        "model.dropout.nr.p=1.0", "model.dropout.rh.p=1.7", "model.dropout.fc.space=columns",
        "model.hidden=[8,9,16]", "model.embedding=8", "optim.lr=0", "optim.name=lion", "seed=-1",
        "optim.schedule.name=cosine", "trainer.epochs=0", "trainer.precision=8",
        "data.batch_size=0", "sample.temperature=-1", "logger=wandb", "resume=gone.pt", "name=run",
        "optim.betas=[0.9]",
    )  # fmt: skip
    assert done.code == 2
    faults = done.err.splitlines()
    assert faults == [
        "train_lm: the configuration has 19 faults:",
        "  seed=-1: must lie in [0, 2**32)",
        "  optim.name=lion: use one of sgd, adam, nt_asgd",
        "  optim.lr=0.0: must be above 0: it is the learning rate",
        "  optim.betas=[0.9]: must be two numbers in [0, 1)",
        "  optim.schedule.name=cosine: use one of constant, step_down, inverse",
        "  trainer.epochs=0: must be 1 or more",
        "  trainer.precision=8: use one of 32-true, 64-true, bf16-mixed, bf16-true, 16-mixed",
        "  model.dropout.nr.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  model.dropout.rh.p=1.7: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  model.dropout.fc.space=columns: use one of structured, random",
        "  model.dropout.input.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing",
        "  data.batch_size=0: must be 1 or more",
        "  sample.temperature=-1.0: must be 0 or more; 0 takes the likeliest word",
        "  resume=gone.pt: there is no such file; use auto, or the path of a checkpoint",
        "  logger wandb needs the package wandb, which is not installed: pip install wandb, or "
        "leave logger=wandb out (metrics.csv is always written)",
        "  model.layers=2: contradicts model.hidden=[8, 9, 16]: leave it null",
        "  model.tied=True: needs one width for model.embedding=8 and the last of model.hidden="
        "[8, 9, 16]; make them equal, or tied=false",
        f"  data.valid={tmp_path}/text/nowhere.txt: there is no such file",
        "  data.test=None: missing: three files, or a folder with data.path, or trainer.test="
        "false, which does without it",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("optim.betas=???", "optim.betas: missing; give it a value"),
        ("trainer.devices=???", "trainer.devices: missing; give it a value"),
        ("mode=???", "mode: missing; give it a value"),
        ("data=ptb", "data.path: missing; give it a value: data.path=..., a folder with ptb"),
        (
            "data=text",
            "data.path: missing; give it a value: data.path=..., a folder with train",
        ),
        (
            "experiment=zaremba_small",
            "scripts/prepare_ptb.py --help` says how to get them). For",
        ),
        ("model.cell=GRU", "model.cell=GRU: use one of lstm, gru"),
        ("model.cel=gru", "model.cel=gru: there is no such key; did you mean model.cell? There"),
        ("data.level=letter", "data.level=letter: use one of word, char"),
        ("data.min_count=0", "data.min_count=0: must be 1 or more"),
        ("data.max_words=2", "data.max_words=2: must be 3 or more"),
        ("data.encoding=klingon", "data.encoding 'klingon' is unknown: use a name that Python"),
        ("data.path=''", "data.path=: there is no such folder"),
        ("data.train=''", "data.path={text}: contradicts data.train, data.valid, data.test"),
        ("sample.seed=-1", "sample.seed=-1: must lie in [0, 2**32)"),
        (
            "+model.dropout.nr.rate=0.5",
            "model.dropout.nr.rate: there is no such key; use one of p, space, time, count",
        ),
        ("+logger.mine=3", "logger.mine: has no _target_"),
        (
            "+logger.mine._target_=no.such.Thing",
            "logger.mine cannot be made: Error locating target ",
        ),
    ],
)
def test_odd_values_are_faults_too(lm, small, text, override: str, fault: str) -> None:
    asks_for_a_text = override.startswith(("data=", "experiment="))
    options = small[1:] if asks_for_a_text else small
    done = lm(*options, override, "trainer.max_updates=1")
    assert done.code == 2
    assert fault.format(text=text) in done.err
    assert "Traceback" not in done.err


def test_a_rate_that_is_no_rate_names_key_and_rule(lm, small) -> None:
    done = lm(*small, "model.dropout.nr.p=1.0", "model.dropout.fc.time=later")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has 3 faults:\n"
        "  model.dropout.nr.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops nothing\n"
        "  model.dropout.fc.time=later: use one of random, fixed\n"
        "  model.dropout.input.p=1.0: must lie in [0, 1): it is the share dropped; 0 drops "
        "nothing\n",
    )


def test_an_unknown_key_is_refused_by_name(lm, small) -> None:
    done = lm(*small, "model.dropout.nr.rate=0.5")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has one fault:\n  model.dropout.nr.rate=0.5: there is no such "
        "key; use one of p, space, time, count\n",
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: (text / "train.txt").write_text(""), "train.txt is empty"),
        (
            lambda text: (text / "train.txt").write_text("one line\n"),
            "too few for data.batch_size 3",
        ),
        (lambda text: (text / "valid.txt").write_bytes(b"w1\nw\xff\n"), "byte 0xff"),
        (
            lambda text: [
                (text / f"{n}.txt").write_text("w1\nw1\n") for n in ("train", "valid", "test")
            ],
            "too few for data.batch_size 3",
        ),
        (lambda text: (text / "test.txt").unlink(), "test.txt is not there"),
    ],
    ids=["empty", "one line", "not UTF-8", "too short", "missing"],
)
def test_a_text_that_cannot_be_used(lm, small, text, run, change, fault) -> None:
    change(text)
    done = lm(*small, "data.batch_size=3")
    assert done.code == 2
    assert fault in done.err
    assert "Traceback" not in done.err
    assert not (run / "last.pt").exists()


@pytest.mark.slow
def test_several_processes_do_not_go_with_a_sweep(lm, small) -> None:
    done = lm("-m", *small, "trainer.devices=2", "seed=1,2")
    assert done.code == 1
    assert (
        "trainer.devices=2: a sweep has one process a run: train without -m, or with 1" in done.err
    )
