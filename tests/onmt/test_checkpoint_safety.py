"""No code of a checkpoint runs, on any torch that is supported."""

from __future__ import annotations

import io
import os
import pickle
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from opennmt_sd import archive
from opennmt_sd.onmt.checkpoint import CheckpointError, read
from opennmt_sd.onmt.export import export
from opennmt_sd.onmt.loading import load_safely
from opennmt_sd.unpickling import load

OPT = {
    "encoder_type": "sd_rnn",
    "decoder_type": "sd_rnn",
    "dropout": [0.3],
    "sd_count": "exact",
    "sd_output_sets": "staggered",
    "_all_transform": {"a"},
}


class Trap:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


class Attribute(Trap):
    """The same by way of a harmless module."""

    def __reduce__(self) -> Any:
        return getattr, (Trap, "__name__")


@pytest.fixture(params=[True, False], ids=["as on torch 2.6", "as on torch 2.1 to 2.5"])
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not archive.HAS_SAFE_LOAD:
        pytest.skip("this torch has no safe load of its own")
    monkeypatch.setattr(archive, "HAS_SAFE_LOAD", request.param)


def content(**more: Any) -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    vocab = {"src": ["a", "<unk>"], "tgt": ["b"], "data_task": "seq2seq"}
    return {"model": OrderedDict(a=weight, b=weight.detach()[1:], c=torch.ones(2).half()),
            "generator": {"bias": torch.ones(2, dtype=torch.bfloat16)}, "vocab": vocab,
            "opt": Namespace(**OPT, **more), "optim": {"x": torch.tensor(3)}}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("trap", [Trap, Attribute])
def test_no_code_of_a_checkpoint_runs(
    stack: None, tmp_path: Path, zipped: bool, trap: type[Trap]
) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    bad = content(share=trap(trace))
    torch.save(bad, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"it names [a-z_.]*(system|getattr), which"
    ) as caught:
        export(path, tmp_path / "out.pt")
    text = str(caught.value)
    assert "weights_only" not in text, "torch's advice is to load it unsafely"
    assert "\n" not in text
    assert not trace.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt"]


def test_a_program_is_no_checkpoint(stack: None, tmp_path: Path) -> None:
    """torch.load hands a TorchScript file on to torch.jit.load, which runs what is in it."""
    path = tmp_path / "model.pt"
    torch.jit.script(torch.nn.Identity()).save(path)
    with pytest.raises(CheckpointError, match=r"not readable as a checkpoint.*TorchScript"):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("mmap", [True, False])
def test_what_onmt_train_writes_is_read(
    stack: None, tmp_path: Path, zipped: bool, mmap: bool
) -> None:
    path = tmp_path / "model.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    got, wanted = read(path, mmap=mmap), content()
    assert vars(got["opt"]) == vars(wanted["opt"])
    assert got["vocab"] == wanted["vocab"]
    for part in ("model", "generator"):
        for key, tensor in wanted[part].items():
            assert torch.equal(got[part][key], tensor)
            assert got[part][key].dtype == tensor.dtype


def test_a_real_checkpoint_is_read(stack: None, commands: Any) -> None:
    path = commands.train(1, dropout=0.3).checkpoint()
    got = read(path)
    assert {"model", "generator", "vocab", "opt", "optim"} <= set(got)
    assert len(got["optim"]["optimizer"]["state"]) > 0


def forget(path: Path, *options: str) -> None:
    """Let a checkpoint be one of a version that did not have these options."""
    older = torch.load(path, weights_only=False)
    for option in options:
        delattr(older["opt"], option)
    torch.save(older, path)


def test_a_checkpoint_from_before_an_option_goes_on_with_what_it_meant(commands: Any) -> None:
    """Its sets were of units each by itself, its output's those of steps; today's are others."""
    path = commands.train(1, dropout=0.3).checkpoint()
    forget(path, "sd_count", "sd_output_sets")
    assert read(path)["opt"].sd_output_sets == "by_step"
    assert read(path)["opt"].sd_count == "bernoulli"
    resumed = commands.train(2, "resumed", train_from=path, dropout=0.3)
    said = (
        "kept from the checkpoint: sd_count bernoulli (this run: exact), "
        "sd_output_sets by_step (this run: staggered); --over"
    )
    assert any(said in line for line in resumed.log), resumed.log
    assert any("output 0.3 structured/random, recurrent" in line for line in resumed.log)
    again = read(resumed.checkpoint())["opt"]
    assert (again.sd_count, again.sd_output_sets) == ("bernoulli", "by_step")


def test_an_encoder_alone_of_before_an_option(commands: Any) -> None:
    """Behind it, the output's sets mean nothing: nothing is said of them."""
    types = {"encoder_type": "sd_brnn", "decoder_type": "rnn", "dropout": 0.3}
    path = commands.train(1, **types).checkpoint()
    forget(path, "sd_count", "sd_output_sets")
    log = commands.train(2, "resumed", train_from=path, **types).log
    said = "kept from the checkpoint: sd_count bernoulli (this run: exact); --over"
    assert any(said in line for line in log), log


@pytest.mark.parametrize(("space", "count"), [("structured", "exact"), ("random", "bernoulli")])
def test_a_checkpoint_says_the_count_that_it_means(commands: Any, space: str, count: str) -> None:
    run = commands.train(1, dropout=0.3, sd_space=space)
    assert read(run.checkpoint())["opt"].sd_count == count
    shown = "structured/random/exact/staggered" if count == "exact" else "random/random"
    assert any(f"output 0.3 {shown}, recurrent" in line for line in run.log), run.log
    log = commands.train(2, "resumed", train_from=run.checkpoint(), dropout=0.3, sd_space=space).log
    assert not any("kept from" in line for line in log), log


def test_a_checkpoint_of_stocks_gets_no_options(commands: Any) -> None:
    path = commands.train(1, encoder_type="brnn", decoder_type="rnn").checkpoint()
    forget(path, "sd_output_sets")
    assert not hasattr(read(path)["opt"], "sd_output_sets")


@pytest.fixture
def old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.load as it was before 2.6: whatever a file says is run unless told otherwise."""
    load = torch.load

    def unsafe(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{"weights_only": False, **kwargs})

    monkeypatch.setattr(torch, "load", unsafe)
    monkeypatch.setattr(archive, "HAS_SAFE_LOAD", False)


def _translate(commands: Any, path: Path) -> None:
    commands.translate(path)


def _resume(commands: Any, path: Path) -> None:
    commands.train(3, train_from=path)


def _average(commands: Any, path: Path) -> None:
    from onmt.bin import average_models

    average_models.average_models([str(path)])


def _release(commands: Any, path: Path) -> None:
    from onmt.bin import release_model

    argv = ["onmt_release_model", "-m", str(path), "-o", str(commands.folder / "out.pt")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        release_model.main()


@pytest.mark.parametrize("use", [_translate, _resume, _average, _release])
def test_stocks_commands_run_none_either(
    old_torch: None, commands: Any, tmp_path: Path, use: Callable[[Any, Path], None]
) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    torch.save(content(share=Trap(trace)), path)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("average_models", "release_model"):
            # As the autoload does when it is imported, and `onmt_sd_*` always.
            command = import_module(f"onmt.bin.{name}")
            patch.setattr(command, "torch", command.torch)
            load_safely(command)
        with pytest.raises((CheckpointError, SystemExit)):
            use(commands, path)
    assert not trace.exists()


def test_word_vectors_run_none_either(old_torch: None, plugin: None, tmp_path: Path) -> None:
    from onmt.modules.embeddings import Embeddings

    path, trace = tmp_path / "vectors.pt", tmp_path / "trace"
    torch.save({"a": Trap(trace)}, path)
    with pytest.raises(CheckpointError, match=r"which could run code|it could run code"):
        Embeddings(4, 6, 0).load_pretrained_vectors(str(path))
    assert not trace.exists()


def test_a_pickle_of_ours_says_what_it_lacks() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"it names os.system, which a checkpoint"):
        load(io.BytesIO(b"cos\nsystem\n."))


@pytest.mark.parametrize("module", ["onmt.inputters.text_dataset", "torchtext.data.field"])
def test_a_checkpoint_of_an_older_version(
    stack: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Its vocabularies are objects of classes that are gone: the text says what to do."""
    cls = type("Field", (), {"__module__": module})
    parts = module.split(".")
    with monkeypatch.context() as patch:
        for i in range(1, len(parts) + 1):
            name = ".".join(parts[:i])
            patch.setitem(sys.modules, name, ModuleType(name))
        sys.modules[module].Field = cls
        torch.save({**content(), "vocab": {"src": cls()}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError) as refusal:
        read(tmp_path / "model.pt")
    assert str(refusal.value) == (
        f"{tmp_path / 'model.pt'}: written by OpenNMT-py 1 or 2, whose vocabularies are code: "
        "convert it with tools/convertv2_v3.py, of OpenNMT-py's sources"
    )
