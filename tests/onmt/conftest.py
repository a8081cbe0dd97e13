"""What the tests of the plugin share: onmt with the plugin registered, and a parser at hand."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """
encoder_type: sd_brnn
decoder_type: sd_rnn
data: {}
src_vocab: none
"""


@pytest.fixture(scope="session")
def plugin() -> None:
    from opennmt_sd.onmt import register

    register()


@pytest.fixture
def parse(plugin: None, tmp_path: Path) -> Callable[..., Namespace]:
    """`onmt_train`'s own parser, on a config with our types and what a test adds to it."""

    def parse(*args: str, yaml: str = "") -> Namespace:
        from onmt.bin.train import _get_parser

        config = tmp_path / "config.yaml"
        config.write_text(CONFIG + yaml)
        return _get_parser().parse_known_args(["-config", str(config), *args])[0]

    return parse


@pytest.fixture
def refused(
    parse: Callable[..., Namespace], capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Like `parse`, of what must be refused: gives the text on stderr."""

    def refused(*args: str, yaml: str = "") -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            parse(*args, yaml=yaml)
        assert exit_.value.code == 2
        return capsys.readouterr().err

    return refused
