"""The `opennmt_sd` command: one line on stderr for what went wrong, and an exit code."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

import opennmt_sd
from opennmt_sd.cli.main import main


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


def test_a_fault_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "no.pt")]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"opennmt_sd export: {tmp_path}/no.pt: no such file\n"
    assert captured.out == ""


@pytest.mark.parametrize("folder", [".", "/", ""])
def test_a_folder_is_no_checkpoint(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", folder]) == 1
    assert "this is a folder: give a checkpoint file" in capsys.readouterr().err


def test_force(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint)]) == 0
    assert main(["export", str(checkpoint)]) == 1
    assert "exists already: --force overwrites it" in capsys.readouterr().err
    assert main(["export", str(checkpoint), "--force"]) == 0


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["export"], ["info", "--more"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage: opennmt_sd" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENNMT_SD_AUTOLOAD", "0")
    assert main(["info"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["opennmt_sd"] == opennmt_sd.__version__
    assert facts["torch"] == torch.__version__
    assert facts["autoload"] == "off (OPENNMT_SD_AUTOLOAD=0)"
    assert facts["engine"].endswith("(cpu)")
