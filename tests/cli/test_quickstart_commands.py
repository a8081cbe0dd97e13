"""The quickstart with the real commands of OpenNMT-py, on a sample of a few sentences."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from opennmt_sd.cli import quickstart, stock

pytest.importorskip("yaml", reason="OpenNMT-py is not installed")
pytest.importorskip("sacrebleu", reason="OpenNMT-py is not installed")

pytestmark = pytest.mark.slow

TINY = {"train_steps": 4, "save_checkpoint_steps": 2, "report_every": 1, "layers": 1,
        "hidden_size": 8, "word_vec_size": 8, "batch_size": 4}  # fmt: skip


@pytest.fixture
def interrupted(
    warm_python: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> set[str]:
    """The real commands, run by a Python that is warm; Ctrl-C comes before those named in this."""
    find, before = stock.find, set()

    def found(name: str) -> Path:
        if name in before:
            raise KeyboardInterrupt
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join([*warm_python, str(find(name))])} "$@"\n')
        path.chmod(0o755)
        return path

    monkeypatch.setattr(stock, "find", found)
    return before


def test_they_train_resume_and_translate(
    interrupted: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        quickstart.check_environment()
        stock.find("onmt_train")
    except (quickstart.QuickstartError, stock.CommandError) as error:
        pytest.skip(str(error))
    folder, sample = tmp_path / "the user's: run #1", tmp_path / "sample"
    sample.mkdir()
    for path in quickstart.TATOEBA.glob("*.??"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (sample / path.name).write_text("".join(lines[:16]), encoding="utf-8")
    monkeypatch.setattr(quickstart, "TATOEBA", sample)
    settings = {**quickstart.settings_for(folder), **TINY}
    interrupted.add("onmt_translate")
    with pytest.raises(KeyboardInterrupt):
        quickstart.quickstart(folder, settings)
    out = capsys.readouterr().out
    assert "opennmt_sd: dropout" in out
    assert "4/4  perplexity" in out
    newest = folder / "model_step_4.pt"
    newest.write_bytes(newest.read_bytes()[:-30])
    interrupted.clear()
    quickstart.quickstart(folder, settings)
    out = capsys.readouterr().out
    assert f"-train_from {shlex.quote(str(folder / 'model_step_2.pt'))}" in out
    assert "     3/4  perplexity" in out
    assert "     2/4  perplexity" not in out
    assert "BLEU" in out
