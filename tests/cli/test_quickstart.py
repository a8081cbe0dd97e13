"""The quickstart: the order of its commands, how it goes on, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from opennmt_sd import _autoload as autoload
from opennmt_sd.cli import quickstart, stock

yaml = pytest.importorskip("yaml", reason="OpenNMT-py is not installed")
pytest.importorskip("sacrebleu", reason="OpenNMT-py is not installed")

# Stands in for all three commands: notes its arguments, and writes what the real one would.
STUB = """
import json, os, pathlib, sys, yaml, zipfile

name, here = pathlib.Path(sys.argv[0]).name, pathlib.Path(sys.argv[0]).parent
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(here / "calls.jsonl", "a", encoding="utf-8") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
config = yaml.safe_load(pathlib.Path(given["-config"]).read_text(encoding="utf-8"))
mode = os.environ.get("STUB", "")
if name == "onmt_build_vocab":
    for key in ("src_vocab", "tgt_vocab"):
        pathlib.Path(config[key]).write_text("a\\t2\\nb\\t1\\n", encoding="utf-8")
elif name == "onmt_train":
    begin = int(given.get("-train_from", "_0.").rpartition("_")[2].partition(".")[0])
    for step in range(begin + 2, config["train_steps"] + 1, 2):
        if mode == f"fail before {step}":
            sys.exit(f"no step {step}\\n")
        print(f"Step {step}/{config['train_steps']}; acc: 1.0; ppl: 2.0; x;  3 sec;")
        if mode != "no checkpoint":
            with zipfile.ZipFile(f"{config['save_model']}_step_{step}.pt", "w") as file:
                file.writestr("data", bytes(1000))
else:
    lines = pathlib.Path(given["-src"]).with_suffix(".en").read_text(encoding="utf-8")
    pathlib.Path(given["-output"]).write_text(lines[mode == "short" and 60:], encoding="utf-8")
"""

SETTINGS: dict[str, Any] = {"train_steps": 6, "hidden_size": 4}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts the stubs in place; gives the commands that were called since the last look."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("onmt_build_vocab", "onmt_train", "onmt_translate"):
        (bin_ / name).write_text(f"#!{sys.executable}\n{STUB}", encoding="utf-8")
        (bin_ / name).chmod(0o755)
    monkeypatch.setattr(stock, "find", lambda name: bin_ / name)
    log = bin_ / "calls.jsonl"

    def look() -> list[list[str]]:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    return look


def names(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls]


def go(folder: Path, **changed: Any) -> None:
    quickstart.quickstart(folder, {**quickstart.settings_for(folder), **SETTINGS, **changed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "the user's: run #1"  # a path that YAML must quote


def test_a_fresh_run(calls, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(folder)
    model, hypotheses = folder / "model_step_6.pt", folder / "test.hyp.en"
    config = str(folder / "quickstart.yaml")
    assert calls() == [
        ["onmt_build_vocab", "-config", config, "-n_sample", "-1", "-overwrite"],
        ["onmt_train", "-config", config],
        ["onmt_translate", "-config", str(folder / "quickstart_translate.yaml"),
         "-model", str(model), "-src", str(quickstart.TATOEBA / "test.de"),
         "-output", str(hypotheses)],
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "BLEU 100.0 on 500 held-out sentences (nrefs:1|" in out
    assert "2 and 2 different tokens" in out
    assert out.count("  translation  ") == out.count("  reference    ") == 5
    for path in folder.iterdir():
        assert f"\n  {path}\n" in out
    assert {"vocab.de", "vocab.en", "train.log"} < {path.name for path in folder.iterdir()}


def test_a_finished_training_is_not_repeated(
    calls, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(folder)
    calls()
    go(folder)
    assert names(calls()) == ["onmt_translate"]
    assert f"finished before: {folder / 'model_step_6.pt'}" in capsys.readouterr().out


def test_an_interrupted_training_goes_on(
    calls, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB", "fail before 6")
    with pytest.raises(stock.CommandError, match="no step 6") as failed:
        go(folder)
    assert failed.value.code == 1
    calls()
    monkeypatch.delenv("STUB")
    go(folder)
    train, translate = calls()
    assert train[-2:] == ["-train_from", str(folder / "model_step_4.pt")]
    assert translate[3:5] == ["-model", str(folder / "model_step_6.pt")]


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def damage_middle(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(bytes(100), bytes(99) + b"x", 1))


def damage_all(path: Path) -> None:
    path.write_bytes(b"")


def damage_table(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 99  # a compression that there is not
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_end, damage_middle, damage_all, damage_table])
def test_a_damaged_checkpoint_is_passed_over(
    calls, folder: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    go(folder)
    calls()
    damage(folder / "model_step_6.pt")
    go(folder)
    train, _ = calls()
    assert train[-2:] == ["-train_from", str(folder / "model_step_4.pt")]
    line = f"  {folder / 'model_step_6.pt'} is incomplete or damaged: passed over\n"
    assert capsys.readouterr().out.count(line) == 1


def test_no_whole_checkpoint_begins_anew(calls, folder: Path) -> None:
    go(folder)
    calls()
    for path in folder.glob("*.pt"):
        damage_end(path)
    go(folder)
    _, train, _ = (commands := calls())
    assert names(commands) == ["onmt_build_vocab", "onmt_train", "onmt_translate"]
    assert "-train_from" not in train


def test_a_lost_vocabulary_is_built_again(calls, folder: Path) -> None:
    go(folder)
    calls()
    (folder / "vocab.de").unlink()
    go(folder)
    assert names(calls()) == ["onmt_build_vocab", "onmt_translate"]


def test_a_real_checkpoint_is_checked_byte_for_byte(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model_step_2.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    assert quickstart.newest_checkpoint(tmp_path) == (2, path)
    damage_middle(path)
    assert quickstart.newest_checkpoint(tmp_path) is None


def test_other_settings_are_refused(calls, folder: Path) -> None:
    go(folder)
    calls()
    with pytest.raises(quickstart.QuickstartError) as refused:
        go(folder, hidden_size=8)
    assert str(refused.value) == (
        f"{folder} holds a training that was begun with other settings (hidden_size: 4 there, "
        "8 here): name another --dir, or remove that folder"
    )
    assert calls() == []
    (folder / "quickstart.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(quickstart.QuickstartError, match=r"quickstart\.yaml cannot be read"):
        go(folder)


def test_another_place_is_not_another_setting(calls, folder: Path) -> None:
    go(folder)
    calls()
    folder.rename(moved := folder.with_name("moved"))
    go(moved)
    assert names(calls()) == ["onmt_translate"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("no checkpoint", "onmt_train ended well, but there is no whole .*model_step_6.pt"),
        ("short", "test.hyp.en has 49[0-9] lines, but .*test.de has 500"),
    ],
)
def test_a_command_that_wrote_too_little(
    calls, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    monkeypatch.setenv("STUB", mode)
    with pytest.raises(quickstart.QuickstartError, match=message):
        go(folder)


# ---- the command ----


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment where the package is installed."""
    monkeypatch.delenv(autoload.SWITCH, raising=False)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    autoload.install()


def test_main_ends_with_the_code_of_a_failed_command(
    calls, armed, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUB", "fail before 200")
    monkeypatch.setattr(quickstart, "settings_for", lambda f, of=quickstart.settings_for: {
        **of(f), "train_steps": 200})  # fmt: skip
    assert quickstart.main(["--dir", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "onmt_train failed with exit code 1. Its last lines:\n" in error
    assert "    no step 200" in error
    assert error.endswith(f"All of its output: {folder / 'train.log'}\n")


def test_main_runs_it_all(calls, armed, folder: Path) -> None:
    assert quickstart.main(["--dir", str(folder)]) == 0
    assert names(calls()) == ["onmt_build_vocab", "onmt_train", "onmt_translate"]


def test_main_refuses_without_onmt(
    armed, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert quickstart.main(["--dir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert (
        f"needs OpenNMT-py, but onmt, sacrebleu, yaml is not installed for {sys.exec_prefix}"
        in (error)
    )
    assert "make setup" in error
    assert not folder.exists()


def test_main_refuses_when_the_plugin_would_not_load(
    armed, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(autoload.SWITCH, "0")
    assert quickstart.main(["--dir", str(folder)]) == 2
    assert "OPENNMT_SD_AUTOLOAD=0 keeps structured dropout out" in capsys.readouterr().err
    monkeypatch.delenv(autoload.SWITCH)
    finders = [f for f in sys.meta_path if not hasattr(f, "loads_opennmt_sd")]
    monkeypatch.setattr(sys, "meta_path", finders)
    assert quickstart.main(["--dir", str(folder)]) == 2
    assert "not installed in this environment, only importable" in capsys.readouterr().err
    assert not folder.exists()


def test_main_refuses_a_file_as_folder(
    calls, armed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert quickstart.main(["--dir", str(tmp_path / "file")]) == 2
    assert "File exists" in capsys.readouterr().err
    assert calls() == []
