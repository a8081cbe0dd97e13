"""Trainings on a GPU by the commands, on corpora that are tiny: they end, and go on bit for bit."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

SENTENCE = ["Peter NNP I-NP I-PER", "met VBD I-VP O", "Mary NNP I-NP I-PER", "EU NNP I-NP I-ORG"]
Command = Callable[..., Path]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device) -> Callable[..., Command]:
    """``command(main, *options)``: a command in a folder of its own; a call adds options, and gives
    the folder of the run."""
    from hydra.core.global_hydra import GlobalHydra

    from opennmt_sd.recipes import training

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "plot_curves", lambda metrics, picture, **_: picture.touch())

    def of(main: Callable[[], None], *options: str) -> Command:
        def run(name: str, *more: str) -> Path:
            on = f"trainer.accelerator={device.type}"
            monkeypatch.setattr(sys, "argv", ["command", *options, on, f"name={name}", *more])
            GlobalHydra.instance().clear()
            main()
            (folder,) = tmp_path.glob(f"runs/*/{name}")
            return folder

        return run

    return of


def write(folder: Path, **lines: Iterable[str]) -> None:
    folder.mkdir()
    for name, text in lines.items():
        (folder / name.replace("_", ".")).write_text("\n".join(text) + "\n")


@pytest.fixture
def lm(command: Callable[..., Command], tmp_path: Path) -> Callable[..., Command]:
    from opennmt_sd.cli.train_lm import main

    def text(count: int) -> list[str]:
        return random.Random(count).choices([f"w{i}" for i in range(11)], k=count)

    write(tmp_path / "text", train_txt=text(120), valid_txt=text(30), test_txt=text(30))
    return lambda *options: command(
        main, "data.path=text", "data.batch_size=2", "data.unroll=5", "data.eval_batch_size=2",
        "model.embedding=8", "model.hidden=8", "sample.words=3", "trainer.log_every=1", *options,
    )  # fmt: skip


@pytest.fixture
def tagger(command: Callable[..., Command], tmp_path: Path) -> Callable[..., Command]:
    pytest.importorskip("torchcrf", reason="pytorch-crf is not installed")
    from opennmt_sd.cli.train_tagger import main

    rows = [line for n in (4, 2, 3, 1, 4, 2) for line in (*SENTENCE[:n], "")]
    write(tmp_path / "data", eng_train=rows, eng_testa=rows, eng_testb=rows)
    return lambda *options: command(
        main, "data.path=data", "data.batch_size=2", "model.word_dim=6",
        "model.char_dim=4", "model.char_width=4", "model.hidden=8", "trainer.log_every=1", *options,
    )  # fmt: skip


def differing(one: Path, other: Path) -> list[str]:
    """Return which weights are not the same bits."""
    a, b = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (one, other))
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def check_resume(train: Command) -> None:
    """Six updates, and four that go on to six, end in the same bits; and so do six again."""
    whole = train("whole", "trainer.max_updates=6")
    train("parts", "trainer.max_updates=4")
    parts = train("parts", "trainer.max_updates=6", "resume=auto")
    assert differing(whole, parts) == []
    assert differing(whole, train("again", "trainer.max_updates=6")) == []
    assert differing(whole, train("five", "trainer.max_updates=5")) != []


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_language_model_goes_on(lm: Callable[..., Command], cell: str) -> None:
    check_resume(lm(f"model.cell={cell}", "model.dropout.rh.p=0.3"))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_language_model_in_mixed_precision(
    lm: Callable[..., Command], card: torch.device, precision: str
) -> None:
    check_resume(lm("model.dropout.rh.p=0.3", f"trainer.precision={precision}"))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_tagger_goes_on(tagger: Callable[..., Command], cell: str) -> None:
    check_resume(tagger(f"model.cell={cell}", "model.dropout.rh.p=0.3"))


def test_a_tagger_of_character_lstms_goes_on(tagger: Callable[..., Command]) -> None:
    check_resume(tagger("model.chars=lstm", "model.dropout.rh.p=0.3"))
