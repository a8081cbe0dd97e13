"""The `opennmt_sd` command: one line on stderr for what went wrong, and an exit code."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO

import pytest
import torch

import opennmt_sd
from opennmt_sd.cli.main import main
from opennmt_sd.ops.calibration import Times, cache_file, calibrate


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model_step_5.pt"
    opt = Namespace(encoder_type="sd_rnn", decoder_type="sd_rnn", sd_time="random")
    torch.save({"model": {}, "vocab": {}, "opt": opt}, path)
    return path


def test_export_says_what_it_wrote(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint)]) == 0
    written = checkpoint.with_name("model_step_5.stock.pt")
    assert capsys.readouterr().out == f"{written}\n"
    assert written.is_file()


def test_export_to_a_named_file(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.pt")]) == 0
    assert (tmp_path / "x.pt").is_file()


def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "no.pt")]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"opennmt_sd export: {tmp_path}/no.pt: no such file\n"
    assert captured.out == ""


@pytest.mark.parametrize("folder", [".", "/", ""])
def test_a_folder_is_no_checkpoint(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", folder]) == 2
    assert "this is a folder: give a checkpoint file" in capsys.readouterr().err


def test_a_folder_stands_for_its_last_checkpoint(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint.parent
    shutil.copy(checkpoint, folder / "model_step_10.pt")
    assert main(["export", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}/model_step_10.stock.pt\n"
    shutil.copy(checkpoint, folder / "other_step_3.pt")
    assert main(["export", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"opennmt_sd export: {folder}: this is a folder with checkpoints of 2 trainings: give one "
        f"of {folder}/model_step_10.pt, {folder}/other_step_3.pt\n"
    )


@pytest.mark.timeout(30)  # to open a pipe would wait for ever
def test_a_pipe_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert main(["export", str(path)]) == 2
        assert f"{path}: this is a device or a pipe: give a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"opt": Namespace(encoder_type="sd_rnn")}, "it has no model options and vocabulary"),
        (
            {"opt": Namespace(encoder_type=["sd_rnn"]), "vocab": {}},
            "its encoder_type is ['sd_rnn']",
        ),
        ({"opt": Namespace(encoder_type="sd_rnn"), "vocab": {}}, "holds no weights"),
        ({"opt": Namespace(), "vocab": {}, "model": {}}, "needs no export: it was trained with"),
        ([], "not an OpenNMT-py checkpoint"),
    ],
)
def test_a_checkpoint_made_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, text: str
) -> None:
    torch.save(content, tmp_path / "hand.pt")
    assert main(["export", str(tmp_path / "hand.pt")]) == 2
    assert text in capsys.readouterr().err


def test_a_full_disk(
    checkpoint: Path,
    small_files: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with small_files(100):
        assert main(["export", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert "cannot be written: " in error
    assert error.endswith("; nothing was left behind\n")
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_folder_that_may_not_be_written_to(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert main(["export", str(checkpoint)]) == 1
    assert f"you may not write into {checkpoint.parent}: give another" in capsys.readouterr().err


def test_a_stop(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    assert main(["export", str(checkpoint)]) == 130
    assert capsys.readouterr().err == "\nopennmt_sd export: stopped\n"
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["exprot"], "there is no command exprot: did you mean export?"),
        (["export", "x", "--froce"], "unknown arguments: --froce (did you mean --force?)"),
        (["info", "--more"], "unknown arguments: --more"),
    ],
)
def test_the_nearest_name(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert text in capsys.readouterr().err


def test_python_m(run_python: Callable[..., CompletedProcess[str]]) -> None:
    done = run_python("-m", "opennmt_sd", "--version")
    assert (done.returncode, done.stdout) == (0, f"{opennmt_sd.__version__}\n")


def test_force(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint)]) == 0
    assert main(["export", str(checkpoint)]) == 2
    assert "exists already: --force overwrites it" in capsys.readouterr().err
    assert main(["export", str(checkpoint), "--force"]) == 0


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["export"], ["info", "--more"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage: opennmt_sd" in capsys.readouterr().err


def test_info_says_what_was_measured_on_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "opennmt_sd" / "calibration-1.json"
    assert main(["info"]) == 0
    assert f"calibration  on, 0 choices in {file}\n" in capsys.readouterr().out
    cache_file.add("gathered linear; a card", Times(2.0, 1.5))
    cache_file.add("recurrence LSTM; a card", Times(1.0, 0.96))
    with calibrate(False):
        assert main(["info"]) == 0
    assert (
        f"calibration  off (OPENNMT_SD_CALIBRATE=0), 2 choices in {file}\n"
        "             ours (ours 1.5 ms, dense 2 ms): gathered linear; a card\n"
        "             dense (ours 0.96 ms, dense 1 ms): recurrence LSTM; a card\n"
    ) in capsys.readouterr().out


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENNMT_SD_AUTOLOAD", "0")
    assert main(["info"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["opennmt_sd"] == opennmt_sd.__version__
    assert facts["torch"] == torch.__version__
    assert facts["autoload"] == "off (OPENNMT_SD_AUTOLOAD=0)"
    assert facts["engine"].endswith("(cpu)")
    if facts["native"] == "there":
        assert facts["bfloat16"].startswith("multiplied in ")
