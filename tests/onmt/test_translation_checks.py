"""What a translation reads and writes, and its numbers: looked at before anything is done."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from opennmt_sd.onmt.checkpoint import CheckpointError
from opennmt_sd.onmt.input_faults import file_fault
from opennmt_sd.onmt.loading import load_safely_as_command
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError


@pytest.fixture
def model(untrained: Callable[..., Path], tmp_path: Path) -> Path:
    """A model of this test's own: it may come to harm."""
    return shutil.copy(untrained(), tmp_path / "model_step_1.pt")


@pytest.mark.parametrize("name", ["src", "tgt", "model", "phrase_table"])
@pytest.mark.parametrize("linked", [False, True])
def test_an_output_takes_the_place_of_no_input(
    commands: Any, model: Path, name: str, linked: bool
) -> None:
    given = {key: commands.folder / key for key in ("src", "tgt", "phrase_table")}
    given["src"].write_text("w1 w2\nw3\n")
    given["tgt"].write_text("w1\nw2\n")
    given["phrase_table"].write_text("w1|||w2\n")
    files = {**given, "model": model}
    before = files[name].read_bytes()
    output = files[name]
    if linked:
        output = commands.folder / "link"
        os.symlink(files[name], output)
    with pytest.raises(UnsupportedOptionsError) as error:
        commands.translate(model, **given, output=output)
    assert str(error.value) == (
        f"output {output} is the file of {name}, which would be emptied before it is read: give "
        "another output"
    )
    assert files[name].read_bytes() == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"src": "no"}, "src no: no such file"),
        ({"src": "."}, "src .: this is a folder: give a text file"),
        ({"tgt": "no"}, "tgt no: no such file"),
        ({"phrase_table": "no"}, "phrase_table no: no such file"),
        ({"output": "no/out"}, "output no/out: there is no folder {here}/no: make it first"),
        ({"output": "."}, "output .: this is a folder: give a file"),
        ({"log_file": "no/log"}, "log_file no/log: there is no folder {here}/no: make it first"),
        ({"tgt_file_prefix": True}, "tgt_file_prefix needs the prefixes: add tgt, one line for"),
        (
            {"tgt_file_prefix": True, "transforms": "prefix", "src_prefix": "w1"},
            "tgt_file_prefix needs the prefixes: add tgt, one line for each source line, or one for"
            " all: transforms: [prefix] with tgt_prefix",
        ),
    ],
    ids=str,
)
def test_places(
    commands: Any, model: Path, monkeypatch: pytest.MonkeyPatch, options: Any, text: str
) -> None:
    monkeypatch.chdir(commands.folder)
    output = commands.folder / "output"
    output.write_text("of before")
    with pytest.raises(UnsupportedOptionsError) as error:
        commands.translate(model, **options)
    assert str(error.value).startswith(text.format(here=commands.folder))
    assert output.read_text() == "of before"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_best": 0}, "n_best 0 must be at least 1"),
        ({"beam_size": 0}, "beam_size 0 must be at least 1"),
        ({"batch_size": -1}, "batch_size -1 must be at least 1"),
        ({"random_sampling_topp": 1.5}, "random_sampling_topp 1.5 is outside [0, 1]"),
        ({"random_sampling_temp": -0.5}, "random_sampling_temp -0.5 must not be negative: 0 takes"),
        ({"dump_beam": "x"}, "dump_beam is not there in OpenNMT-py 3: remove it"),
        ({"gpu": 0}, "gpu 0 is not there, torch sees none: set gpu: -1 to translate on the CPU"),
        ({"world_size": 2, "gpu_ranks": [0, 1]},
         "world_size 2 needs as many GPUs, torch sees none: remove world_size and gpu_ranks"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers(
    commands: Any, model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, options: Any, text: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as exit_:
        commands.translate(model, **options)
    assert exit_.value.code == 2
    assert f"error: {text}" in capsys.readouterr().err


def test_more_of_the_likeliest_words_than_there_are(commands: Any, model: Path) -> None:
    """A draw from the 1,000 likeliest of 16 words is one from all of them."""
    options = {"seed": 3, "random_sampling_topk": 1000}
    found = commands.translate(model, **options).lines
    assert found == commands.translate(model, **{**options, "random_sampling_topk": 16}).lines


@pytest.mark.parametrize(
    ("name", "flag"), [("average_models", "-models"), ("release_model", "--model")]
)
def test_what_is_made_of_checkpoints_replaces_none(
    commands: Any, model: Path, monkeypatch: pytest.MonkeyPatch, name: str, flag: str
) -> None:
    command, before = import_module(f"onmt.bin.{name}"), model.read_bytes()
    monkeypatch.setattr(command, "torch", command.torch)
    load_safely_as_command(command)

    def run(output: Path) -> None:
        monkeypatch.setattr(sys, "argv", [name, flag, str(model), "-o", str(output)])
        command.main()

    with pytest.raises(CheckpointError, match=r"this is a checkpoint that was read: give another"):
        run(model)
    assert model.read_bytes() == before
    with pytest.raises(CheckpointError, match=r"no/out.pt: cannot be written: No such file"):
        run(commands.folder / "no" / "out.pt")
    out = commands.folder / "out.pt"
    run(out)
    assert commands.translate(out).lines == commands.translate(model).lines


def test_a_pipe_is_a_text_to_translate_and_no_text_to_train_on(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert [*file_fault("src", pipe, "a text file", pipes=True)] == []
    assert [*file_fault("path_src", pipe, "a text file")] == [
        f"path_src {pipe}: this is a device or a pipe: give a text file"
    ]
