"""The OpenNMT-py configurations that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="OpenNMT-py is not installed")
pytest.importorskip("onmt", reason="OpenNMT-py is not installed")

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf" / "onmt"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["quickstart.yaml", "multi30k.yaml"])
def test_train_knows_every_key(name: str) -> None:
    # onmt_train drops a key that it does not know in silence.
    from onmt.opts import train_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    train_opts(parser)
    options, unknown = parser.parse_known_args(["-config", str(CONF / name)])
    assert unknown == []
    assert (options.encoder_type, options.decoder_type) == ("sd_brnn", "sd_rnn")
    assert options.dropout == [0.3]


def test_translate_knows_every_key() -> None:
    from onmt.opts import translate_opts
    from onmt.utils.parse import ArgumentParser

    parser = ArgumentParser()
    translate_opts(parser)
    options = parser.parse_args(
        ["-config", str(CONF / "quickstart_translate.yaml"), "-model", "m", "-src", "s"]
    )
    assert options.transforms == ["onmt_tokenize"]


def test_translate_tokenises_as_training_does() -> None:
    train, translate = load("quickstart.yaml"), load("quickstart_translate.yaml")
    for key in ("src_onmttok_kwargs", "tgt_onmttok_kwargs"):
        assert translate[key] == train[key]
    assert all(corpus["transforms"] == translate["transforms"] for corpus in train["data"].values())


def test_quickstart_finds_its_files_from_the_root() -> None:
    settings = load("quickstart.yaml")
    paths = [path for corpus in settings["data"].values()
             for key, path in corpus.items() if key.startswith("path_")]  # fmt: skip
    for path in [*paths, settings["src_vocab"], settings["tgt_vocab"]]:
        assert (ROOT / path).is_file(), path
