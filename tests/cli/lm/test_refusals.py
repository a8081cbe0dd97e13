"""What a trainer's command refuses, in which words, and that a refusal touches nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd import archive


@pytest.fixture
def tagger(call, tmp_path: Path):
    from opennmt_sd.cli.train_tagger import main

    return lambda *overrides: call(main, *overrides)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "model=lample",
            "model=lample: is of the tagger: opennmt_sd_train_tagger model=lample. Here there are "
            "awd_lstm, ",
        ),
        (
            "hparams_search=optuna_tagger",
            "hparams_search=optuna_tagger: is of the tagger: opennmt_sd_train_tagger "
            "hparams_search=optuna_tagger. Here there are grid, ",
        ),
        (
            "predict.input=x",
            "predict.input=x: is a key of the tagger: opennmt_sd_train_tagger predict.input=x",
        ),
        ("model=zaremba_smal", "model=zaremba_smal: there is none of this name; did you mean zare"),
        ("onmt=multi30k", "onmt=multi30k: there is no such key; use one of mode, seed, "),
        ("optm.lr=3", "optm.lr=3: there is no such key; did you mean optim.lr? There are mode, "),
        ("lr=3", "lr=3: there is no such key; did you mean optim.lr? There are mode, "),
        (
            "+optim.lrr=3",
            "optim.lrr: there is no such key; did you mean optim.lr? There are name, ",
        ),
        ("seed=x", "seed=x: must be a whole number"),
        ("sample.temperature=inf", "sample.temperature=inf: must be a finite number"),
        ("optim.lr=inf", "optim.lr=inf: must be a finite number"),
        ("optim.weight_decay=nan", "optim.weight_decay=nan: must be a finite number"),
        ("model.tar=nan", "model.tar=nan: must be a finite number"),
        ("trainer.test=maybe", "trainer.test=maybe: must be true or false"),
        ("model.dropout.nr.p=a", "model.dropout.nr.p=a: must be a number"),
        (
            "data.path=a=b",
            "data.path=a=b: cannot be read (mismatched input '=' expecting <EOF>); quote a value "
            """with special characters: 'data.path="a=b"'""",
        ),
        ("name=${nothing}", "hydra.run.dir: Interpolation key 'nothing' not found"),
        ("name=../../up", "name=../../up: must be a path below the folder of runs, such as a/b"),
        ("name=", "name=: must be a path below the folder of runs, such as a/b"),
        ("name=/up", "name=/up: must be a path below the folder of runs, such as a/b"),
        (
            "name=r1/.hydra",
            "name=r1/.hydra: .hydra is where a run keeps what it was configured with; leave that "
            "part out",
        ),
        (
            "hparams_search=ray",
            "hydra/launcher=ray: its package is missing: pip install hydra-ray-",
        ),
        ("direction=maximize", "direction=maximize: perplexity is better when lower: minimize"),
        (
            "resume=",
            "resume=: is empty (of a variable that is not set?): use auto, the path of a "
            "checkpoint, or leave it out",
        ),
    ],
)
def test_a_fault_of_the_command_line(lm, tiny, tmp_path, override: str, fault: str) -> None:
    done = lm(*tiny[:-1], *([] if override.startswith("name") else ["name=run"]), override)
    assert done.code == 2
    assert done.err.startswith(f"train_lm: the configuration has one fault:\n  {fault}")
    assert not list(tmp_path.glob("runs/**/*.pt"))
    assert sorted(os.listdir(tmp_path)) in (["text"], ["runs", "text"])  # no up


def test_an_exact_count_needs_shared_sets(lm, tiny) -> None:
    exact = "model.dropout.fc.count=exact"
    done = lm(*tiny, exact, "model.dropout.fc.space=random")
    assert (done.code, done.err) == (
        2,
        "train_lm: the configuration has one fault:\n  model.dropout.fc.count=exact: needs "
        "model.dropout.fc.space=structured: sequences that each drop their own units have no set "
        "of one size to share\n",
    )
    assert lm(*tiny, exact, "model.dropout.fc.space=structured").code == 0


def test_the_remedy_of_a_value_that_cannot_be_read(lm, tiny) -> None:
    done = lm(*tiny[1:], 'data.path="a=b"')
    assert "a=b: there is no such folder" in done.err


def test_the_tagger_refuses_what_is_of_the_language_model(tagger) -> None:
    done = tagger("experiment=awd_lstm")
    assert (done.code, done.err) == (
        2,
        "train_tagger: the configuration has one fault:\n  experiment=awd_lstm: is of the language "
        "model: opennmt_sd_train_lm experiment=awd_lstm. Here there are lample, ma_hovy, ncrfpp\n",
    )
    done = tagger("direction=minimize")
    assert "direction=minimize: F1 is better when higher: maximize" in done.err


@pytest.mark.parametrize("task", ["lm", "tagger"])
def test_help_lists_what_serves_and_nothing_else(call, task: str) -> None:
    import importlib

    done = call(importlib.import_module(f"opennmt_sd.cli.train_{task}").main, "--help")
    groups = done.out.partition("== Groups")[2].partition("== Keys")[0]
    ours, theirs = ("awd_lstm", "ma_hovy") if task == "lm" else ("ma_hovy", "awd_lstm")
    for name in (ours, "optuna", "mlflow", "nt_asgd", "naive"):
        assert name in groups
    for name in (theirs, "onmt", "quickstart", "benchmark"):
        assert name not in groups


def record(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"  # which only grows
    }


def test_the_record_is_that_of_hydra(trained, run) -> None:
    assert {path.name for path in (run / ".hydra").iterdir()} == {
        "config.yaml", "hydra.yaml", "overrides.yaml",
    }  # fmt: skip
    assert "\n  hidden: 8\n" in (run / ".hydra/config.yaml").read_text()
    assert "- model.hidden=8\n" in (run / ".hydra/overrides.yaml").read_text()


def test_a_refused_command_leaves_a_folder_as_it_was(lm, trained, tiny, run) -> None:
    before = record(run)
    for refused in (
        ("optim.lr=1",),  # holds a training already
        ("resume=auto", "model.hidden=16", "model.tied=false"),  # another training
        ("resume=auto", "data.path=nowhere"),
        ("resume=auto", "optim.lr=-1"),
        ("resume=auto", "sample.prompt=hamlet"),
    ):
        assert lm(*tiny, *refused).code == 2
        assert record(run) == before, refused
    assert lm(f"checkpoint={run}", "mode=evaluate", "name=run").code == 0
    assert record(run) == before


@pytest.mark.slow
def test_going_on_with_a_finished_training_changes_no_figures(lm, lm_once, tiny, run) -> None:
    lm_once(*tiny)  # cut off between two evaluations
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "result.json")}
    assert lm(*tiny, "resume=auto").code == 0
    assert {name: (run / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_a_damaged_last_checkpoint_gives_way_to_the_one_gone_on_from(
    lm, trained, tiny, run
) -> None:
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:-500])
    assert "beside it there is best.pt" in lm(*tiny, "resume=auto").err
    done = lm(*tiny, f"resume={run}/best.pt")
    assert done.code == 0, done.err
    assert archive.is_whole(run / "last.pt")


def test_a_folder_does_for_a_checkpoint(lm, trained, tiny, run) -> None:
    result = json.loads((run / "result.json").read_text())
    done = lm("mode=evaluate", "checkpoint=runs/lm/run", "name=e")
    assert f"perplexity {result['test/perplexity']:.5g}" in done.out, done.err
    assert lm(*tiny, "resume=runs/lm/run", "name=second").code == 0


def test_a_checkpoint_that_is_no_ordinary_file_does_not_hang(lm, tiny, tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    for command in (("mode=evaluate", "checkpoint=fifo.pt"), (*tiny, "resume=fifo.pt")):
        done = lm(*command)
        assert done.code == 2
        assert f"{tmp_path}/fifo.pt is no ordinary file" in done.err


@pytest.mark.parametrize(
    "missing", ["model", "optimizer", "config", "constants", "position", "ranks", "averaging"]
)
def test_a_checkpoint_made_by_hand(lm, trained, tiny, run, missing: str) -> None:
    state = torch.load(run / "last.pt", weights_only=True)
    del state[missing]
    torch.save(state, run.parent / "mine.pt")
    done = lm(*tiny, "resume=runs/lm/mine.pt", "name=second")
    if missing == "averaging":  # of this recipe there is none
        assert done.code == 0
        return
    assert done.code == 2
    assert "mine.pt " in done.err
    assert "Traceback" not in done.err
    if missing != "ranks":
        assert f"it has no entry '{missing}'. It was made by hand" in done.err
    if missing in ("model", "config", "constants"):
        done = lm("mode=evaluate", "checkpoint=runs/lm/mine.pt", "name=e")
        assert done.code == 2
        assert "Traceback" not in done.err


def test_a_folder_that_cannot_be_made(lm, tiny, tmp_path) -> None:
    (tmp_path / "runs").write_text("no folder")
    done = lm(*tiny)
    assert done.code == 1
    assert done.err.startswith(f"train_lm: {tmp_path}/runs")
    assert "Is the disk full or over its quota, or the folder not yours to write to?" in done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("drawn_curves")
def test_a_disk_that_is_full_when_curves_are_drawn(lm, tiny, run, monkeypatch) -> None:
    from matplotlib.figure import Figure

    def savefig(self, file, **options) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        done = lm(*tiny)
    assert done.code == 1
    assert done.err.startswith(f"train_lm: {run}/curves.png: No space left on device. Is the disk")
    assert not (run / "curves.png.partial").exists()
    assert lm(*tiny, "resume=auto").code == 0
    assert (run / "curves.png").exists()


@pytest.mark.parametrize("place", ["training.plot_curves", "train_lm.validate"])
def test_ctrl_c_outside_of_a_training(lm, tiny, monkeypatch, place: str) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"opennmt_sd.recipes.{place}", interrupted)
    done = lm(*tiny)
    assert (done.code, done.err) == (
        130,
        "train_lm: stopped by SIGINT; no training was running, and nothing is lost\n",
    )


@pytest.mark.slow
def test_two_runs_of_one_second_have_folders_of_their_own(lm, tiny, tmp_path) -> None:
    for _ in range(2):
        assert lm(*tiny[:-1], "trainer.test=false", "sample.words=0").code == 0
    assert len(list(tmp_path.glob("runs/lm/*/*/last.pt"))) == 2
