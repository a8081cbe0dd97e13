"""What a command prints cannot steer the terminal, whatever files are called."""

from __future__ import annotations

import pytest

pytest.importorskip("hydra", reason="hydra-core is not installed")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")

from opennmt_sd.cli.plain import plain
from opennmt_sd.cli.train_tagger import main
from opennmt_sd.training import checkpoint


def test_control_characters_become_escapes() -> None:
    assert plain("Grüße, محمد 東京 \u200d\n\tx") == "Grüße, محمد 東京 \u200d\n\tx"
    assert plain("\x1b[2J\r\x07\x9b31m\u2028\x7f") == ("\\x1b[2J\\r\\x07\\x9b31m\\u2028\\x7f")


def test_names_of_files_in_logs_and_errors(call, tmp_path) -> None:
    evil = "a\x1b[2J\x9b1m"
    rows = "Peter B-PER\nmet O\n"
    (tmp_path / evil).mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / evil / name).write_text(rows)
    tiny = ("model.hidden=4", "trainer.epochs=1", "trainer.accelerator=cpu", "name=run")
    done = call(main, f"data.path='{evil}'", *tiny)
    assert done.code == 0, done.err
    assert "a\\x1b[2J\\x9b1m/train.txt: 1 sentences" in done.out
    assert "\x1b" not in done.out + done.err
    model = tmp_path / "runs/tagger/run/tagger.pt"
    state = checkpoint.read(model)
    state["config"]["data"]["path"] = f"/no/{evil}"  # where a stranger's data lay
    checkpoint.write(model, state)
    done = call(main, "mode=evaluate", f"checkpoint={model}", "name=e")
    assert done.code == 2
    assert "/no/a\\x1b[2J\\x9b1m" in done.err
    assert "\x1b" not in done.out + done.err
